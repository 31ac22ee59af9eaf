from __future__ import annotations

from autotune.core.interval import Interval
from autotune.quality.sequential import Look
from autotune.results.ruling import Ruling

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
