"""A command that refuses late leaves everything as it was: exit code 2 means that nothing was written."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import autotune.evaluation.judges
from autotune.cli import BAD_INPUT, run
from autotune.policy import CacheRule, Policy
from autotune.study.trials import sqlite_url
from tests.support.fake_search import HELD_OUT, PROMPTS, FakePictures, ReadingScorer, tiny_pipeline, use_pictures

from .conftest import Finished

Run = Callable[..., Finished]

TUNE = ("tune", "--prompts", "prompts.txt", "--steps", "10", "--images", "12", "--held-out-images", "12",
        "--trials", "1", "--device", "cpu", "--model", "model", "--quiet")  # fmt: skip
MISFIT = Policy(steps=4, cache=(CacheRule(units=("no.such.unit",), compute_steps=(0,)),))


class Blind(ReadingScorer):
    """Takes every prompt for another: the full run's pictures match the others better than their own."""

    def text_features(self, prompts: Any) -> torch.Tensor:
        return super().text_features([f"{prompt} upside down" for prompt in prompts]) - super().text_features(prompts)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, prompts, a policy that does not fit and a finished run. Only to be read."""
    folder = tmp_path_factory.mktemp("kept")
    tiny_pipeline().save_pretrained(folder / "model")
    (folder / "prompts.txt").write_text("\n".join([*PROMPTS, *HELD_OUT]))
    MISFIT.save(folder / "misfit.json")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        use_pictures(FakePictures(), monkeypatch)
        monkeypatch.setattr(autotune.evaluation.judges, "Scorer", lambda name, device: ReadingScorer())
        assert run([*TUNE, "--scorer", "reading", "--out", "run", "--study-name", "study"]) in (0, 3)
    return folder


@pytest.fixture
def here(kept: Path, in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a copy, in which pictures are scored by a blind man."""
    shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(autotune.evaluation.judges, "Scorer", lambda name, device: Blind())
    # Of this process, whose own SIGTERM stays as it is.
    monkeypatch.setattr("autotune.cli.worker.signal.signal", lambda *_: None)
    use_pictures(FakePictures(), monkeypatch)
    return tmp_path


def contents(folder: Path) -> dict[str, object]:
    """All files; of a database what it says, since its pages may be moved by what has come and gone."""
    return {str(path.relative_to(folder)): _content(path) for path in folder.rglob("*")}


def _content(path: Path) -> object:
    data = path.read_bytes() if path.is_file() else None
    if data is None or not data.startswith(b"SQLite format 3"):
        return data
    with sqlite3.connect(path) as connection:
        return [*connection.iterdump()]


def nothing(here: Path) -> None:
    """The folder as it is."""


def an_empty_run(here: Path) -> None:
    (here / "new").mkdir()


def an_older_log(here: Path) -> None:
    (here / "new").mkdir()
    (here / "new" / "log.txt").write_text("an earlier run\n")
    (here / "new" / "notes.txt").write_text("mine")


def no_database(here: Path) -> None:
    (here / "other.db").write_text("no database")


def another_database(here: Path) -> None:
    with sqlite3.connect(here / "other.db") as connection:
        connection.execute("CREATE TABLE mine (number INTEGER)")


def one_of_two_studies(here: Path) -> None:
    """Of the larger budget, from another search."""
    study = "new-60pct"
    shutil.copy(here / "run" / "study.db", here / "other.db")
    with sqlite3.connect(here / "other.db") as connection:
        connection.execute("UPDATE studies SET study_name = ?", (study,))


def a_damaged_picture(here: Path) -> None:
    next((here / "run" / "pictures").glob("*.webp")).write_bytes(b"no picture")


def damaged_finalists(here: Path) -> None:
    (here / "run" / "finalists.json").write_text("{}")


def no_search_record(here: Path) -> None:
    document = json.loads((here / "run" / "search.json").read_text()) | {"storage": "sqlite:///gone.db"}
    (here / "run" / "search.json").write_text(json.dumps(document))
    (here / "run" / "study.db").unlink()


BLIND = "match their prompts"
CASES: list[tuple[Callable[[Path], None], tuple[str, ...], str]] = [
    (nothing, (*TUNE, "--scorer", "blind", "--out", "new"), BLIND),
    (nothing, (*TUNE, "--scorer", "blind", "--out", "new/er/run"), BLIND),
    (an_empty_run, (*TUNE, "--scorer", "blind", "--out", "new"), BLIND),
    (an_older_log, (*TUNE, "--scorer", "blind", "--out", "new"), BLIND),
    (nothing, (*TUNE, "--scorer", "blind", "--out", "new", "--budget", "40%", "--budget", "60%"), BLIND),
    (nothing, (*TUNE, "--scorer", "blind", "--out", "new", "--storage", "sqlite:///new.db"), BLIND),
    (nothing, (*TUNE, "--scorer", "blind", "--out", "run", "--study-name", "another"), BLIND),
    (
        nothing,
        (*TUNE, "--scorer", "blind", "--out", "new", "--storage", "sqlite:///run/study.db", "--study-name", "another"),
        BLIND,
    ),
    (
        nothing,
        (*TUNE, "--scorer", "reading", "--out", "run", "--study-name", "study", "--seed", "1"),
        "its seed was 0, now it is 1",
    ),
    (
        one_of_two_studies,
        (*TUNE, "--out", "new", "--study-name", "new", "--storage", "sqlite:///other.db", "--budget", "40%",
         "--budget", "60%"),
        "the study 'new-60pct' cannot be resumed",
    ),
    (no_database, (*TUNE, "--out", "new", "--storage", "sqlite:///other.db"), "cannot be opened"),
    (nothing, (*TUNE, "--out", "new", "--storage", "sqlite:///no/folder/study.db"), "cannot be opened"),
    (nothing, ("worker", "--storage", "sqlite:///typo.db", "--study-name", "study"), "there is no study 'study' in"),
    (another_database, ("worker", "--storage", "sqlite:///other.db", "--study-name", "study"), "there is no study"),
    (
        nothing,
        ("worker", "--storage", "sqlite:///run/study.db", "--study-name", "study", "--out", "new", "--device", "cpu"),
        BLIND,
    ),
    (
        nothing,
        ("compare", "--policy", "misfit.json", "--model", "model", "--prompts", "prompts.txt", "--out", "new"),
        "no.such.unit",
    ),
    (nothing, ("generate", "--prompt", "cat", "--policy", "misfit.json", "--model", "model", "--out", "new"),
     "no.such.unit"),
    (nothing, ("profile", "--model", "model", "--scales", "0.01", "--out", "new/profile.json"), "scale"),
    (nothing, ("price", "misfit.json", "--model", "model", "--json"), "no.such.unit"),
    (nothing, ("describe", "misfit.json", "--model", "model", "--json"), "no.such.unit"),
    (a_damaged_picture, ("report", "run", "--out", "new/page.html"), "cannot be read"),
    (damaged_finalists, ("report", "run", "--json"), "finalists.json"),
    (nothing, ("report", "run", "--storage", "sqlite:///typo.db"), "holds no study"),
    (another_database, ("report", "run", "--storage", "sqlite:///other.db"), "holds no study"),
    (no_search_record, ("report", "run"), "holds no study"),
    (damaged_finalists, ("dashboard", "run"), "finalists.json"),
    (nothing, ("dashboard", "run", "--storage", "sqlite:///typo.db"), "holds no study"),
    (no_database, ("dashboard", "run", "--storage", "sqlite:///other.db"), "cannot be opened"),
]  # fmt: skip


@pytest.mark.parametrize(("before", "arguments", "named"), CASES)
def test_nothing_stays(
    before: Callable[[Path], None], arguments: tuple[str, ...], named: str, here: Path, in_process: Run
) -> None:
    before(here)
    was = contents(here)
    finished = in_process(*arguments)
    assert (finished.code, finished.output) == (BAD_INPUT, ""), finished.errors
    (line,) = (line for line in finished.errors.splitlines() if line.startswith("postdiff: "))
    assert named in line
    now = contents(here)
    assert now.keys() == was.keys()
    assert now == was


def test_a_port_that_is_taken_leaves_the_study_as_it_was(here: Path, in_process: Run) -> None:
    was = contents(here)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        finished = in_process("dashboard", "run", "--port", str(taken.getsockname()[1]))
    assert finished.code == BAD_INPUT and "cannot listen" in finished.errors
    assert contents(here) == was


def test_a_folder_that_cannot_be_written_to_is_refused_at_once(
    here: Path, in_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write anywhere.
    monkeypatch.setattr("autotune.cli.checks.os.access", lambda path, mode: mode != os.W_OK | os.X_OK)
    for arguments in ((*TUNE, "--out", "new"), ("generate", "--prompt", "cat", "--out", "cat.png")):
        finished = in_process(*arguments)
        assert finished.code == BAD_INPUT and "nothing may be written to" in finished.errors


def test_the_corrected_command_is_not_held_to_the_refused_one(
    here: Path, in_process: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sqlite_url(here / "run" / "study.db")
    command = (*TUNE, "--storage", url, "--study-name", "another", "--out", "new")
    assert in_process(*command, "--scorer", "blind").code == BAD_INPUT
    monkeypatch.setattr(autotune.evaluation.judges, "Scorer", lambda name, device: ReadingScorer())
    assert in_process(*command, "--scorer", "reading").code in (0, 3)
