"""The full runs that come with the shipped models are what a first search would make."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.cost import parse_budget
from autotune.evaluation.evaluator import Evaluator
from autotune.models.shipped import DEMO_NAMES, FULL_RUNS, demo_pipeline
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.workflows.evaluators import evaluator_for, shipped_full_run
from autotune.workflows.forecast import Pace, shared_seconds
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup, prepare

FIRST = 32


@pytest.fixture(scope="module", params=DEMO_NAMES)
def setup(request: pytest.FixtureRequest) -> Iterator[Setup]:
    """A search with default options."""
    pipe = demo_pipeline(request.param)
    with without_bars(pipe):
        yield prepare(pipe, [parse_budget("25%")], TuneOptions())[0]


def test_they_are_of_default_options_and_no_others() -> None:
    setups = [prepare(demo_pipeline(name), [parse_budget("40%")], TuneOptions())[0] for name in DEMO_NAMES]
    assert {shipped_full_run(each) for each in setups} == {*FULL_RUNS.iterdir()}
    (other,) = prepare(None, [parse_budget("40%")], TuneOptions(seed=7))
    assert shipped_full_run(other) is None


def of_tuning(setup: Setup, folder: Path) -> Evaluator:
    return evaluator_for(setup, setup.tuning, "tuning", folder, Progress(quiet=True))


def of_held_out(setup: Setup, folder: Path, count: int) -> Evaluator:
    examples = setup.held_out.head(count)
    return evaluator_for(setup, examples, "held-out", folder, Progress(quiet=True), setup.last_judges)


def test_a_search_makes_no_picture_of_them(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(*given: Any, **more: Any) -> Any:
        raise AssertionError("a picture is made")

    monkeypatch.setattr(Setup, "pictures", made)
    evaluators = [of_tuning(setup, tmp_path), *(of_held_out(setup, tmp_path, count) for count in (128, 480))]
    for evaluator in evaluators:
        assert len(evaluator.full.evaluation) == len(evaluator.rows)
        assert evaluator.objective.score(evaluator.full.evaluation).loss == 0
        # What fewer steps are compared with in pairs.
        count = evaluator.exact_runs.count
        exact = evaluator.exact_runs.of(setup.recipes[0].proposal.policy, count)
        assert exact is not None and len(exact) == count > 0
    assert shared_seconds(setup, Pace(16, 20, 1.0)) == 0


def test_they_are_what_is_made_here(setup: Setup, tmp_path: Path) -> None:
    """But for the last bits, which processors differ in."""
    known = of_tuning(setup, tmp_path)
    anew = evaluator_for(setup, setup.tuning.head(FIRST), "anew", tmp_path, Progress(quiet=True))
    before, after = known.full, anew.full
    shown = len(after.preview)
    assert (before.preview[:shown].float() - after.preview.float()).abs().mean() < 0.5
    one, other = before.evaluation.head(FIRST), after.evaluation
    torch.testing.assert_close(one.features, other.features, atol=0.02, rtol=0)
    assert one.alignment is not None and other.alignment is not None
    torch.testing.assert_close(one.alignment, other.alignment, atol=0.02, rtol=0)
    baselines = known.objective.baseline, anew.objective.baseline
    torch.testing.assert_close(baselines[0].coarse[:FIRST], baselines[1].coarse, atol=0.02, rtol=0)
    assert one.further.keys() == other.further.keys() and one.further
    for name, values in other.further.items():
        torch.testing.assert_close(one.further[name], values, atol=0.02, rtol=0.02)
    for name, values in baselines[1].coarse_errors.items():
        torch.testing.assert_close(baselines[0].coarse_errors[name][: len(values)], values, atol=0.02, rtol=0.02)
