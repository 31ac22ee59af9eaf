from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from optuna.trial import create_trial

from autotune.cost import Cost
from autotune.evaluation.evaluator import Outcome
from autotune.policy import Guidance, MeasuredTime, Policy
from autotune.quality import Evaluation, Interval, Intervals
from autotune.quality.panel import Panel
from autotune.results.finalists import EvaluatedPolicy, Finalists, best_trials, judge
from autotune.study.trials import DESCRIPTION, POLICY, REFINES

FULL, FEWER = Policy(steps=20), Policy(steps=8)
FIRST, SECOND = Policy(steps=9, guidance=Guidance(stop_step=7)), Policy(steps=10, guidance=Guidance(stop_step=5))
JUDGES: Any = SimpleNamespace(
    scorer_name="clip",
    network_name=None,
    estimator="frechet",
    panel=Panel({"distance": 1, "alignment": 2, "fidelity": 0}),
)
LOSSES = {FULL.key: 0.0, FEWER.key: 0.30, FIRST.key: 0.25, SECOND.key: 0.20}


class GivenScores:
    """An evaluator and its objective in one: losses from a table, and one interval for every comparison."""

    keys = ("noto apple", "noto dog", "noto apple")

    def __init__(self, difference: Interval) -> None:
        self.difference = difference
        self.compared: list[float] = []
        self.objective = self

    def outcome(self, policy: Policy) -> Outcome:
        loss = torch.full((3,), LOSSES[policy.key])
        return Outcome(Evaluation(loss[:, None], loss), torch.zeros(3, 3, 8, 8, dtype=torch.uint8))

    def interval(self, evaluation: Evaluation) -> Intervals:
        loss = float(evaluation.features[0, 0])
        return Intervals(*(Interval(loss, loss - 0.1, loss + 0.1) for _ in range(4)))

    def feasible(self, error: float | None) -> bool:
        return error is None

    def compare(self, one: Evaluation, other: Evaluation) -> Interval:
        self.compared = [round(float(each.features[0, 0]), 6) for each in (one, other)]
        return self.difference


def judged(low: float, high: float, candidates: list[EvaluatedPolicy] | None = None) -> tuple[Finalists, list[float]]:
    evaluator: Any = GivenScores(Interval((low + high) / 2, low, high))
    found = (
        [EvaluatedPolicy("study", 5, FIRST), EvaluatedPolicy("study", 7, SECOND)] if candidates is None else candidates
    )
    cost = Cost(1, 1, 0.4, None, 0)
    return judge(evaluator, FULL, FEWER, found, lambda policy: cost, fewer_steps_trial=0), evaluator.compared


@pytest.mark.parametrize(
    ("low", "high", "better"),
    [(-0.3, -0.1, True), (-0.3, 0.0, False), (-0.3, 0.1, False), (0.1, 0.3, False)],
)
def test_only_an_interval_wholly_below_zero_beats_fewer_steps(low: float, high: float, better: bool) -> None:
    finalists, compared = judged(low, high)
    assert finalists.better is better
    assert compared == [0.20, 0.30], "the best candidate, against fewer steps"
    assert finalists.winner.policy == (SECOND if better else FEWER)
    assert finalists.winner.trial == (7 if better else 0)


def test_the_record_tells_of_what_is_exported() -> None:
    better, _ = judged(-0.3, -0.1)
    worse, _ = judged(-0.3, 0.1)
    assert better.quality(JUDGES, 7.5).difference.high == -0.1
    assert better.quality(JUDGES, 7.5).policy.loss.value == pytest.approx(0.20)
    # Fewer steps, compared with itself.
    assert worse.quality(JUDGES, 7.5).difference.high == 0
    assert worse.quality(JUDGES, 7.5).policy == worse.fewer_steps.quality
    assert (better.prompts, better.images) == (2, 3)
    assert better.quality(JUDGES, 7.5).weights == {"distance": 1, "alignment": 2}


def test_candidates_are_ranked_on_held_out_prompts() -> None:
    finalists, _ = judged(-0.3, -0.1)
    assert [candidate.trial for candidate in finalists.candidates] == [7, 5]
    assert [run.name for run in finalists.headline_runs] == ["full run", "fewer steps", "trial 7"]


def test_without_any_candidate_fewer_steps_is_exported() -> None:
    finalists, _ = judged(-0.3, -0.1, candidates=[])
    assert not finalists.better and finalists.winner.policy == FEWER
    assert len(finalists.headline_runs) == 2


def test_times_reach_their_runs_and_the_file(tmp_path: Path) -> None:
    times = [MeasuredTime(device="cpu", batch_size=1, ms_per_image=ms, relative=ms / 10) for ms in (10.0, 4.0, 5.0)]
    finalists = judged(-0.3, -0.1)[0].with_times(times)
    assert finalists.winner.time == times[2] and finalists.fewer_steps.time == times[1]
    finalists.save(tmp_path / "finalists.json")
    contenders = json.loads((tmp_path / "finalists.json").read_text())["contenders"]
    assert [each["time"] and each["time"]["ms_per_image"] for each in contenders] == [10, 4, 5, None]
    assert [each["trial"] for each in contenders] == [None, 0, 7, 5]


def study_of(name: str, *trials: tuple[float, int, int | None]) -> optuna.Study:
    """Of trials with a loss, as many steps as tell them apart, and the trial that each was derived from."""
    study = optuna.create_study(study_name=name)
    for loss, steps, before in trials:
        given = {DESCRIPTION: {POLICY: Policy(steps=steps).to_dict()}}
        study.add_trial(create_trial(value=loss, user_attrs=given if before is None else given | {REFINES: before}))
    return study


def test_what_local_search_derived_from_one_candidate_sends_its_best() -> None:
    study = study_of("a", (0.3, 5, None), (0.2, 6, 0), (0.1, 7, 1), (0.4, 8, None), (0.5, 9, None))
    assert [each.trial for each in best_trials([study], 2)] == [2, 3]
    assert [each.trial for each in best_trials([study], 3)] == [2, 3, 4]


def test_its_others_follow_where_there_is_nobody_else() -> None:
    study = study_of("a", (0.3, 5, None), (0.2, 6, 0), (0.1, 7, 1), (0.4, 8, None))
    assert [each.trial for each in best_trials([study], 3)] == [2, 1, 3]


def test_trials_of_two_studies_are_no_relatives() -> None:
    one = study_of("a", (0.3, 5, None), (0.2, 6, 0), (0.5, 9, None))
    other = study_of("b", (0.25, 7, None), (0.24, 8, 0))
    assert [(each.study, each.trial) for each in best_trials([one, other], 2)] == [("a", 1), ("b", 1)]


def test_candidates_are_within_the_budget_and_none_is_there_twice() -> None:
    one, other = study_of("a", (0.1, 5, None), (0.2, 6, None)), study_of("b", (0.3, 6, None), (0.4, 20, None))
    found = best_trials([one, other], 3, exclude=Policy(steps=5), within=lambda policy: policy.steps < 20)
    assert [(each.study, each.trial) for each in found] == [("a", 1)]
