"""The last round looks at some pictures before all are made, and ends where they decide."""

from __future__ import annotations

from typing import Any

import pytest

from autotune.core.interval import Interval
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

    def undecided(evaluator: Any, candidates: Any, rival: Any, second: Any, level: float) -> Ruling:
        looked.append((len(evaluator.rows), level))
        return Ruling(Interval(value=-0.1, low=-0.22, high=0.02), None, False)

    monkeypatch.setattr("autotune.workflows.last_round.rule", undecided)
    found = tune(pipe, "40%", **arguments | {"held_out_images": PLANNED}).finalists
    assert [(count, round(level, 3)) for count, level in looked] == [(FIRST, 0.99), (PLANNED, 0.96)]
    assert found.images == PLANNED and found.images_planned is None and not found.better
