"""Ctrl-C outside of a search's own safe points: one line that says how to go on, and exit code 130."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from autotune.cli import INTERRUPTED
from autotune.cli.models import ModelSource
from autotune.core.interrupts import Interrupted
from autotune.policy import Policy
from autotune.workflows.tune import TuneResult
from tests.support.fake_search import whole

from .conftest import Finished

__all__ = ["whole"]

Run = Callable[..., Finished]


def press(*args: Any, **kwargs: Any) -> Any:
    raise KeyboardInterrupt


def is_one_line(finished: Finished) -> None:
    assert finished.code == INTERRUPTED
    assert finished.output == ""
    (line,) = finished.errors.splitlines()
    assert line.startswith("postdiff: ") and "repeat the same command" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("tune",),
        ("compare", "--policy", "policy.json"),
        ("generate", "--prompt", "a cat", "--out", "cat.png"),
        ("profile",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_while_a_model_is_loaded(
    arguments: tuple[str, ...], in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Policy(steps=4).save(tmp_path / "policy.json")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(ModelSource, "load", press)
    is_one_line(in_process(*arguments))
    assert sorted(tmp_path.rglob("*")) == before


def test_while_commands_are_read(in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.cli.app.app", press)
    is_one_line(in_process("tune"))


def test_while_the_machine_is_profiled(in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSource, "load", lambda *_, **options: object())
    monkeypatch.setattr("autotune.cli.profile._asked_scales", lambda *_: None)
    monkeypatch.setattr("autotune.cost.measure_profile", press)
    is_one_line(in_process("profile", "--out", "here.json"))
    assert not any(tmp_path.iterdir())


def test_while_a_search_is_prepared(in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSource, "load", lambda *_: object())
    monkeypatch.setattr("autotune.workflows.session.prepare", press)
    stopped = in_process("tune", "--out", "run")
    is_one_line(stopped)
    assert "while preparing the search; nothing of it is kept yet" in stopped.errors
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("part", ["_save_comparison", "write_report", "publish", "_show"])
def test_while_a_result_is_shown(
    part: str, in_process: Run, whole: TuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelSource, "load", lambda *_: object())
    monkeypatch.setattr(import_module("autotune.workflows.tune"), "tune_budgets", lambda *_: (whole,))
    with pytest.MonkeyPatch.context() as pressed:
        pressed.setattr(f"autotune.cli.tune.{part}", press)
        stopped = in_process("tune")
    is_one_line(stopped)
    assert f"{whole.policy_file} is exported" in stopped.errors
    assert (whole.run_dir / "policy.json").is_file() and not list(whole.run_dir.glob("*.part"))


def test_a_worker_says_what_became_of_its_trial(in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = import_module("autotune.workflows.worker")
    join = ("worker", "--storage", "sqlite:///study.db", "--study-name", "study")
    monkeypatch.setattr(worker, "studies_of", press)
    is_one_line(in_process(*join))

    class Joined:
        class manifest:  # noqa: N801
            device, model, dtype = "cpu", None, "auto"

    def work(pipe: object, joined: object, run_dir: Path, **options: Any) -> int:
        raise Interrupted(run_dir)

    monkeypatch.setattr(worker, "studies_of", lambda *_: [Joined()])
    monkeypatch.setattr(worker, "work", work)
    # Of this process, whose own SIGTERM stays as it is.
    monkeypatch.setattr("autotune.cli.worker.signal.signal", lambda *_: None)
    stopped = in_process(*join)
    is_one_line(stopped)
    assert "went back into the queue" in stopped.errors
