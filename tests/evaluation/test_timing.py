from __future__ import annotations

import time

import pytest

from autotune.core.errors import InputError
from autotune.evaluation.timing import time_policies
from autotune.policy import Policy

FULL, HALF = Policy(steps=10), Policy(steps=5)


def test_runs_take_turns_and_the_ratio_is_theirs() -> None:
    called: list[int] = []

    def run(policy: Policy) -> None:
        called.append(policy.steps)
        time.sleep(policy.steps * 0.004)

    full, half = time_policies(run, FULL, [HALF], rounds=3)
    assert called == [10, 5, 10, 5, 5, 10, 10, 5]
    assert full.relative == 1
    assert half.relative == pytest.approx(0.5, abs=0.2)
    assert half.seconds < full.seconds


def test_one_disturbed_run_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # Forwards, backwards, forwards: the first run of the second round is the halved one's.
    clock = iter([0.0, 10, 10, 15, 20, 89, 90, 100, 100, 110, 110, 115])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    _, half = time_policies(lambda policy: None, FULL, [HALF], rounds=3)
    assert (half.seconds, half.relative) == (5, 0.5)


def test_a_machine_that_slows_down_favours_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal policies, every call a second longer than the one before."""
    durations = iter(range(10, 18))
    now = 0.0

    def clock() -> float:
        return now

    def run(policy: Policy) -> None:
        nonlocal now
        now += next(durations)

    monkeypatch.setattr(time, "perf_counter", clock)
    _, same = time_policies(run, FULL, [FULL], rounds=2)
    durations = iter(range(10, 18))
    _, forwards_only = time_policies(run, FULL, [FULL], rounds=1)
    assert abs(same.relative - 1) < 0.01 < forwards_only.relative - 1


def test_no_round_is_refused() -> None:
    with pytest.raises(InputError, match="at least one round"):
        time_policies(lambda policy: None, FULL, [HALF], rounds=0)
