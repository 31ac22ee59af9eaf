"""Which policy is certified above a floor, and how often that is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.core.interval import Interval
from autotune.quality.floor import TESTED, Bounded, Floor, certify, expected, sequence
from autotune.quality.sequential import Look, looks

PLANNED = looks([f"prompt {number}" for number in range(480)])
LAST = PLANNED[-1]
FLOOR = 0.1


def seen_in(losses: numpy.ndarray, asked: list[tuple[int, int]] | None = None) -> Callable[[int, Look], list[Bounded]]:
    """What pictures with these losses (N, K) say of K policies, by t intervals."""

    def seen(place: int, look: Look) -> list[Bounded]:
        if asked is not None:
            asked.append((place, look.pictures))
        values = losses[: look.pictures, place]
        mean, error = float(values.mean()), float(values.std(ddof=1)) / look.pictures**0.5
        reach = NormalDist().inv_cdf((1 + look.level) / 2) * error
        return [Bounded("loss", Interval(value=mean, low=mean - reach, high=mean + reach), FLOOR)]

    return seen


def found_in_repeats(truth: Sequence[float], repeats: int = 1500) -> list[int | None]:
    """What is certified in each of many last rounds of policies with these true losses, whose pictures correlate."""
    numbers = numpy.random.default_rng(0)
    found = []
    for _ in range(repeats):
        shared = numbers.normal(0, 1, (480, 1))
        own = numbers.normal(0, 0.7, (480, len(truth)))
        found.append(certify(len(truth), PLANNED, seen_in(numpy.array(truth) + shared + own)).place)
    return found


@pytest.mark.parametrize("truth", [(FLOOR, FLOOR, FLOOR), (0.02, FLOOR, FLOOR + 0.01), (-0.5, -0.3, FLOOR)])
def test_what_is_certified_truly_holds_the_floor(truth: tuple[float, ...]) -> None:
    # The worst case: they break it by a hair. Bonferroni's looks leave 2.5 % or a little less.
    first_false = next(place for place, loss in enumerate(truth) if loss >= FLOOR)
    wrong = [place is not None and place >= first_false for place in found_in_repeats(truth)]
    assert sum(wrong) / len(wrong) < 0.035


def test_the_cheapest_that_holds_it_is_found() -> None:
    found = found_in_repeats((-0.5, -0.3, -0.2, 0.5), repeats=300)
    assert sum(place == 2 for place in found) / len(found) > 0.95


def test_testing_stops_at_the_first_that_fails_and_where_nothing_can_change() -> None:
    asked: list[tuple[int, int]] = []
    found = certify(3, PLANNED, seen_in(numpy.zeros((480, 3)) + numpy.array([-1.0, 2.0, -1.0]), asked))
    assert (found.place, found.refused, found.look.pictures) == (0, 1, 128)
    assert {place for place, _ in asked} == {0, 1}


def test_what_no_longer_holds_it_in_all_pictures_gives_way_to_the_one_before() -> None:
    intervals = {(0, 128): 0.0, (1, 128): 0.05, (0, 256): 0.0, (1, 256): 0.2, (2, 128): 0.12, (2, 256): 0.9}

    def seen(place: int, look: Look) -> list[Bounded]:
        high = intervals[place, look.pictures]
        return [Bounded("loss", Interval(value=high - 0.1, low=high - 0.2, high=high), FLOOR)]

    found = certify(3, PLANNED, seen)
    assert (found.place, found.refused, found.look.pictures) == (0, 1, 256)


def test_of_two_floors_both_must_hold_and_nothing_holds_of_what_may_not_win() -> None:
    kept = Bounded("loss", Interval(value=0, low=0, high=0), 0.0)
    broken = Bounded("change", Interval(value=1, low=1, high=1), 0.5)
    assert certify(1, PLANNED, lambda *_: [kept]).place == 0
    assert certify(1, PLANNED, lambda *_: [kept, broken]).place is None
    assert certify(1, PLANNED, lambda *_: []).place is None
    assert certify(0, PLANNED, lambda *_: []).place is None


def test_a_prospect_falls_with_the_loss_and_rises_with_the_floor() -> None:
    def chance(loss: float, most: float) -> float:
        return expected([Bounded("loss", Interval(value=loss, low=loss - 0.1, high=loss + 0.1), most)], 256, LAST)

    assert chance(0.0, 0.05) < chance(0.0, 0.1) < chance(0.0, 0.3)
    assert chance(0.2, 0.1) < 0.01 and chance(-0.3, 0.1) > 0.99
    exact = Bounded("change", Interval(value=0, low=0, high=0), 0.0)
    assert expected([exact], 256, LAST) == 1


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 1)), min_size=1, max_size=30))
def test_a_sequence_grows_cheaper_and_less_sure(candidates: list[tuple[int, float]]) -> None:
    costs, chances = [cost for cost, _ in candidates], [chance for _, chance in candidates]
    found = sequence(costs, chances)
    assert 1 <= len(found) <= TESTED
    assert [costs[each] for each in found] == sorted({costs[each] for each in found}, reverse=True)
    assert [chances[each] for each in found] == sorted({chances[each] for each in found}, reverse=True)
    if max(chances) < 0.99:
        assert chances[found[0]] == max(chances)


def test_nothing_is_tested_where_there_is_nothing() -> None:
    assert sequence([], []) == []


def test_a_floor_in_words() -> None:
    assert str(Floor(0.02)) == "loss 0.02" and str(Floor(0, 0.5)) == "loss 0 and change 0.5"
