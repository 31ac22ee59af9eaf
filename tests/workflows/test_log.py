from __future__ import annotations

import logging
import warnings
from pathlib import Path

import optuna
import pytest

from autotune.core.errors import InputError, RunFailed
from autotune.core.naming import TUNER_LOG
from autotune.workflows.log import logged, worker_log
from autotune.workflows.tune import TuneResult
from tests.support.fake_search import TRIALS

OURS = logging.getLogger("autotune.somewhere")


def state() -> list[object]:
    found: list[object] = [warnings.showwarning]
    for name in ("autotune", "optuna"):
        logger = logging.getLogger(name)
        found += [list(logger.handlers), logger.level, logger.propagate]
    return found


def test_everything_is_kept_with_its_time_and_goes_on_as_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = state()
    for number in range(2):
        with logged(tmp_path / "log.txt"), pytest.warns(UserWarning, match="watch out"):
            OURS.debug("a detail, %d", number)
            OURS.warning("a doubt")
            warnings.warn("watch out", stacklevel=1)
    assert state() == before
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [sum(words in line for line in lines) for words in ("a detail, 0", "a detail, 1", "a doubt")] == [1, 1, 2]
    assert all(line[:2] == "20" and line[4] == "-" and "autotune" in line for line in lines)
    assert "torch" in lines[0] and lines[-1].endswith("done")
    # Nobody but the file hears what nobody heard before.
    assert [record.message for record in caplog.records if record.name == OURS.name] == ["a doubt"] * 2


def test_warnings_and_optuna_are_part_of_it(tmp_path: Path) -> None:
    shown: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *_: shown.append(str(message))  # type: ignore[assignment]
        with logged(tmp_path / "log.txt"):
            warnings.warn("watch out", stacklevel=1)
            optuna.logging.get_logger("optuna.study").warning("a trial is lost")
    text = (tmp_path / "log.txt").read_text()
    assert "UserWarning: watch out" in text and "a trial is lost" in text and shown == ["watch out"]


def test_how_it_ends_is_said(tmp_path: Path) -> None:
    before = state()
    for error in (RunFailed("no such thing"), KeyError("a bug"), KeyboardInterrupt()):
        with pytest.raises(type(error)), logged(tmp_path / "log.txt"):
            raise error
    text = (tmp_path / "log.txt").read_text()
    assert "no such thing" in text and "ended by KeyboardInterrupt" in text
    # What nobody foresaw comes with its traceback.
    assert text.count("Traceback") == 1 and "KeyError: 'a bug'" in text
    assert state() == before


@pytest.mark.parametrize("before", [None, "an earlier run\n"])
def test_a_refusal_leaves_no_trace(before: str | None, tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    if before is not None:
        path.write_text(before)
    with pytest.raises(InputError), logged(path):
        OURS.warning("a doubt")
        raise InputError("no such thing")
    assert (path.read_text() if path.exists() else None) == before


def test_a_full_disk_costs_the_log_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    before, after = state(), False
    with logged(tmp_path / "log.txt"):
        OURS.info("one")
        OURS.info("two")
        after = True
    assert after and state() == before
    assert "Logging error" not in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_to_costs_the_log_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before, after = state(), False
    with logged(tmp_path / "missing" / "log.txt"):
        after = True
    assert after and state() == before
    assert "no log is kept" in caplog.text


def test_workers_have_files_of_their_own() -> None:
    assert worker_log() != TUNER_LOG and worker_log().startswith("log-") and "/" not in worker_log()


def test_a_search_tells_its_story(whole: TuneResult) -> None:
    text = (whole.run_dir / TUNER_LOG).read_text()
    assert "study study in" in text and '"full_steps": 10' in text
    assert text.count("autotune.workflows.progress: trial ") == TRIALS
    assert f"better, exports {whole.policy.id}" in text and text.splitlines()[-1].endswith("done")
