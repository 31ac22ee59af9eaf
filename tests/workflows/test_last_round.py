"""The last round looks at some pictures before all are made, and ends where they decide."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.core.interval import Interval
from autotune.policy import Policy
from autotune.results.finalists import read_finalists
from autotune.results.ruling import Ruling
from autotune.workflows.tune import tune
from tests.support.fake_search import FakePictures

# Of twelve prompts each: a look at eleven turns, and one at all twenty.
PLANNED, FIRST = 240, 132


def test_it_ends_where_the_first_pictures_decide(pipe: Any, batched: FakePictures, arguments: dict[str, Any]) -> None:
    given = arguments | {"held_out_images": PLANNED}
    found = tune(pipe, "40%", **given).finalists
    assert found.better and found.images == FIRST and found.images_planned == PLANNED
    assert read_finalists(arguments["run_dir"] / "finalists.json") == found
    assert tune(pipe, "40%", **given).finalists.difference == found.difference


def test_where_they_do_not_all_are_made(
    pipe: Any, batched: FakePictures, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[tuple[int, float]] = []

    def undecided(evaluator: Any, candidates: Any, rival: Any, second: Any, level: float, dropped: Any) -> Ruling:
        looked.append((len(evaluator.rows), level))
        return Ruling(Interval(value=-0.1, low=-0.22, high=0.02), None, False)

    monkeypatch.setattr("autotune.workflows.last_round.rule", undecided)
    found = tune(pipe, "40%", **arguments | {"held_out_images": PLANNED}).finalists
    assert [(count, round(level, 3)) for count, level in looked] == [(FIRST, 0.99), (PLANNED, 0.96)]
    assert found.images == PLANNED and found.images_planned is None and not found.better


def test_who_is_dropped_makes_no_more_pictures_and_still_counts(
    pipe: Any, batched: FakePictures, arguments: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[str], list[int]]] = []

    def undecided(evaluator: Any, candidates: Any, rival: Any, second: Any, level: float, dropped: Any) -> Ruling:
        seen.append((len(evaluator.rows), [each.key for each in candidates], [len(each) for each in dropped]))
        return Ruling(Interval(value=-0.1, low=-0.22, high=0.02), None, False)

    def last_but_one(evaluator: Any, candidates: Any, look: Any, last: Any) -> list[Policy]:
        return list(candidates[1:2])

    monkeypatch.setattr("autotune.workflows.last_round.rule", undecided)
    monkeypatch.setattr("autotune.workflows.last_round.out_of_the_running", last_but_one)
    found = tune(pipe, "40%", **arguments | {"held_out_images": PLANNED}).finalists
    (first, before, none), (last, after, one) = seen
    assert (first, last, len(before), none, one) == (FIRST, PLANNED, 3, [], [FIRST])
    assert after == [before[0], before[2]]
    assert {each.policy.key for each in found.candidates} == {*after}
