from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from autotune.core.interval import Interval
from autotune.policy import Policy
from autotune.quality.sequential import Look
from autotune.results.ruling import Ruling, out_of_the_running

EARLY, LAST = Look(128, 0.99), Look(480, 0.97)


def around(value: float, reach: float) -> Interval:
    return Interval(value=value, low=value - reach, high=value + reach)


def test_what_is_better_is_not_hopeless() -> None:
    assert not Ruling(around(-0.1, 0.05), None, True).hopeless(EARLY, LAST)


def test_what_may_become_better_is_not_hopeless_and_what_is_far_behind_is() -> None:
    assert not Ruling(around(-0.05, 0.1), None, False).hopeless(EARLY, LAST)
    assert Ruling(around(0.05, 0.05), None, False).hopeless(EARLY, LAST)


def test_the_second_opinion_alone_may_make_it_hopeless() -> None:
    difference = around(-0.1, 0.05)
    assert Ruling(difference, around(0.1, 0.05), False).hopeless(EARLY, LAST)
    assert not Ruling(difference, around(0.01, 0.05), False).hopeless(EARLY, LAST)


def test_without_a_candidate_whose_error_is_allowed_there_is_no_hope() -> None:
    assert Ruling(None, None, False).hopeless(EARLY, LAST)


def test_after_the_last_look_nothing_is_left_to_hope() -> None:
    assert Ruling(around(-0.01, 0.05), None, False).hopeless(LAST, LAST)


CANDIDATES = [Policy(steps=steps) for steps in (4, 5, 6)]


class GivenLosses:
    """An evaluator and its objective in one: evaluations are losses, of which intervals reach 0.1 each way."""

    def __init__(self, losses: list[float], errors: list[float]) -> None:
        self._seen = {policy.key: seen for policy, *seen in zip(CANDIDATES, losses, errors, strict=True)}
        self.objective: Any = self

    def outcome(self, policy: Policy) -> Any:
        return SimpleNamespace(evaluation=self._seen[policy.key])

    def score(self, seen: list[float]) -> Any:
        return SimpleNamespace(loss=seen[0], error=seen[1])

    def feasible(self, error: float) -> bool:
        return error <= 0.5

    def verdict(self, finalists: list[list[float]], rival: list[float], *, level: float) -> Any:
        return SimpleNamespace(difference=around(finalists[0][0] - rival[0], 0.1))


@pytest.mark.parametrize(
    ("losses", "errors", "out"),
    [
        ([0.0, 0.02, 0.3], [0, 0, 0], [2]),
        ([0.3, 0.3, 0.3], [0, 0, 0], []),
        ([0.3, 0.0, 0.2], [0, 0, 0], [0, 2]),
        ([0.0, 0.01, 0.02], [0.6, 0, 0.6], [0, 2]),
        ([0.0, 0.3, 0.6], [0.6, 0.6, 0.6], []),
    ],
    ids=["far behind", "equals", "the best is in the middle", "errors above the ceiling", "all above the ceiling"],
)
def test_who_can_hardly_become_the_best_is_out(losses: list[float], errors: list[float], out: list[int]) -> None:
    evaluator: Any = GivenLosses(losses, errors)
    assert out_of_the_running(evaluator, CANDIDATES, EARLY, LAST) == [CANDIDATES[place] for place in out]
