"""Ctrl-C at the beginning of every phase of a search: it stops at a safe point, and the same call goes on."""

from __future__ import annotations

import signal
from importlib import import_module
from typing import Any

import pytest

from autotune.core.interrupts import Interrupted
from autotune.workflows.tune import TuneResult, tune
from tests.support.fake_search import FakePictures

# Not "from autotune.workflows import tune", which is the function.
MODULES = [import_module(f"autotune.workflows.{name}") for name in ("session", "tune", "finish", "last_round")]

# By what each begins with, in their order.
PHASES = {
    "open_study": "opening the study",
    "publish": "inviting workers",
    "evaluator_for": "reference and full run",
    "explore_budgets": "search",
    "judge": "last round",
    "time_policies": "measuring time",
    "exported": "export",
    "keep_gallery": "pictures to look at",
}


def interrupted_at(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Press Ctrl-C when ``function`` is called."""
    module = next(each for each in MODULES if hasattr(each, function))
    original = getattr(module, function)

    def pressed(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, function, pressed)


def test_one_after_the_other(pipe: Any, pictures: FakePictures, continued: dict[str, Any], whole: TuneResult) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("policy.json", "finalists.json"):
        (continued["run_dir"] / name).unlink()
    for function, phase in PHASES.items():
        with pytest.MonkeyPatch.context() as monkeypatch:
            interrupted_at(function, monkeypatch)
            try:
                tune(pipe, "40%", **continued)
            except Interrupted as stopped:
                assert stopped.run_dir == continued["run_dir"] and "repeat the same command" in str(stopped), phase
            else:
                pytest.fail(f"Ctrl-C has no effect in the phase {phase}")
        # No older handler is left in place, nor a signal that waits.
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, phase
    again = tune(pipe, "40%", **continued)
    assert again.policy.key == whole.policy.key
    assert again.finalists.difference == whole.finalists.difference
    assert len(again.study.trials) == len(whole.study.trials)
