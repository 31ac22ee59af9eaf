from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autotune.core.errors import InputError
from autotune.cost import Cost
from autotune.evaluation.evaluator import Outcome
from autotune.policy import Guidance, Interval, MeasuredTime, Policy
from autotune.quality import Evaluation, Intervals
from autotune.quality.panel import Panel
from autotune.quality.verdict import LEAST_PROMPTS, Verdict
from autotune.results.finalists import EvaluatedPolicy, Finalists, judge, read_finalists

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
    """An evaluator, its objective and a second opinion in one: losses from a table, one interval for every verdict."""

    name = "wavelets"

    def __init__(self, difference: Interval, prompts: int = LEAST_PROMPTS) -> None:
        self.difference = difference
        self.judged: list[float] = []
        self.best: int | None = None
        self.keys = tuple(f"prompt {row % prompts}" for row in range(prompts + 1))
        self.objective = self

    def outcome(self, policy: Policy) -> Outcome:
        loss = torch.full((3,), LOSSES[policy.key])
        return Outcome(Evaluation(loss[:, None], loss), torch.zeros(3, 3, 8, 8, dtype=torch.uint8))

    def interval(self, evaluation: Evaluation) -> Intervals:
        loss = float(evaluation.features[0, 0])
        return Intervals(*(Interval(value=loss, low=loss - 0.1, high=loss + 0.1) for _ in range(4)))

    def score(self, evaluation: Evaluation) -> Any:
        return SimpleNamespace(error=None)

    def feasible(self, error: float | None) -> bool:
        return error is None

    def verdict(
        self,
        finalists: Sequence[Evaluation],
        rival: Evaluation,
        *,
        best: int | None = None,
        level: float = 0.95,
        dropped: Sequence[Evaluation] = (),
    ) -> Verdict:
        self.judged = [round(float(each.features[0, 0]), 6) for each in (*finalists, rival)]
        self.best = self.judged[:-1].index(min(self.judged[:-1])) if best is None else best
        return Verdict(self.best, self.difference, len(set(self.keys)))


def scores(low: float, high: float, prompts: int = LEAST_PROMPTS) -> Any:
    return GivenScores(Interval(value=(low + high) / 2, low=low, high=high), prompts)


CANDIDATES = [EvaluatedPolicy("study", 5, FIRST), EvaluatedPolicy("study", 7, SECOND)]


def judged(
    low: float,
    high: float,
    candidates: Sequence[EvaluatedPolicy] = CANDIDATES,
    evaluator: Any = None,
    **options: Any,
) -> tuple[Finalists, GivenScores]:
    evaluator = evaluator or scores(low, high)
    cost = Cost(1, 1, 0.4, None, 0)
    fewer = EvaluatedPolicy(None, 0, FEWER)
    return judge(evaluator, FULL, fewer, candidates, lambda policy: cost, **options), evaluator


@pytest.mark.parametrize(
    ("low", "high", "better"),
    [(-0.3, -0.1, True), (-0.3, 0.0, False), (-0.3, 0.1, False), (0.1, 0.3, False)],
)
def test_only_an_interval_wholly_below_zero_beats_fewer_steps(low: float, high: float, better: bool) -> None:
    finalists, evaluator = judged(low, high)
    assert finalists.better is better
    assert evaluator.judged == [0.25, 0.20, 0.30], "all of them, against fewer steps"
    assert finalists.difference.high == high
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
    assert (better.prompts, better.images) == (LEAST_PROMPTS, LEAST_PROMPTS + 1)
    assert better.quality(JUDGES, 7.5).weights == {"distance": 1, "alignment": 2}


def test_candidates_are_ranked_on_held_out_prompts() -> None:
    finalists, _ = judged(-0.3, -0.1)
    assert [candidate.trial for candidate in finalists.candidates] == [7, 5]
    assert [run.name for run in finalists.headline_runs] == ["full run", "fewer steps", "trial 7"]


def test_without_any_candidate_fewer_steps_is_exported() -> None:
    finalists, _ = judged(-0.3, -0.1, candidates=[])
    assert not finalists.better and finalists.winner.policy == FEWER
    assert len(finalists.headline_runs) == 2


def test_of_too_few_prompts_nothing_is_better() -> None:
    finalists, _ = judged(-0.3, -0.1, evaluator=scores(-0.3, -0.1, prompts=LEAST_PROMPTS - 1))
    assert not finalists.better and finalists.winner.policy == FEWER
    assert finalists.prompts_needed == LEAST_PROMPTS
    assert judged(-0.3, -0.1)[0].prompts_needed is None


@pytest.mark.parametrize(("low", "high", "better"), [(-0.2, -0.1, True), (-0.2, 0.1, False), (0.1, 0.2, False)])
def test_better_needs_the_second_opinion_too(low: float, high: float, better: bool) -> None:
    second = scores(low, high)
    finalists, evaluator = judged(-0.3, -0.1, second=second)
    assert finalists.better is better
    assert finalists.winner.policy == (SECOND if better else FEWER)
    assert second.best == evaluator.best == 1, "of the finalist that the first judge chose"
    assert finalists.second_opinion is not None and finalists.second_opinion.difference.high == high
    assert [each.second_opinion is None for each in finalists.contenders] == [False] * 4


def test_a_second_opinion_alone_makes_nothing_better() -> None:
    finalists, _ = judged(-0.3, 0.1, second=scores(-0.2, -0.1))
    assert not finalists.better and finalists.winner.policy == FEWER


def test_fewer_steps_other_than_the_pipelines_own_are_named() -> None:
    other = Policy(steps=8, timesteps="trailing")
    LOSSES[other.key] = 0.28
    fewer_steps = EvaluatedPolicy("study", 4, other)
    finalists = judge(scores(-0.3, -0.1), FULL, fewer_steps, CANDIDATES, lambda policy: Cost(1, 1, 0.4, None, 0))
    assert finalists.quality(JUDGES, 7.5).fewer_steps_policy == "s8-ts-trailing"


def test_plain_steps_of_earlier_releases_are_no_candidate() -> None:
    found = judged(-0.3, -0.1)[0]
    document = found.to_dict()
    document["contenders"].append(document["contenders"][1] | {"name": "plain steps"})
    earlier = Finalists.model_validate_json(json.dumps(document))
    assert earlier.plain is not None and earlier.plain.policy == FEWER
    assert earlier.candidates == found.candidates and earlier.headline_runs == found.headline_runs
    assert found.plain is None


def test_keys_that_say_nothing_are_not_written() -> None:
    document = judged(-0.3, -0.1)[0].to_dict()
    assert not {"prompts_needed", "second_opinion"} & document.keys()
    assert all("second_opinion" not in each for each in document["contenders"])
    said = judged(-0.3, -0.1, second=scores(-0.2, -0.1))[0]
    assert Finalists.model_validate_json(json.dumps(said.to_dict())) == said


def test_times_reach_their_runs_and_the_file(tmp_path: Path) -> None:
    times = [MeasuredTime(device="cpu", batch_size=1, ms_per_image=ms, relative=ms / 10) for ms in (10.0, 4.0, 5.0)]
    finalists = judged(-0.3, -0.1)[0].with_times(times)
    assert finalists.winner.time == times[2] and finalists.fewer_steps.time == times[1]
    finalists.save(tmp_path / "finalists.json")
    contenders = json.loads((tmp_path / "finalists.json").read_text())["contenders"]
    assert [each["time"] and each["time"]["ms_per_image"] for each in contenders] == [10, 4, 5, None]
    assert [each["trial"] for each in contenders] == [None, 0, 7, 5]
    assert read_finalists(tmp_path / "finalists.json") == finalists


def test_there_need_not_have_been_a_last_round(tmp_path: Path) -> None:
    assert read_finalists(tmp_path / "finalists.json") is None


def drop_verdict(document: dict[str, Any]) -> None:
    del document["verdict"]


def misspell(document: dict[str, Any]) -> None:
    document["contenders"][0]["cost"]["flop"] = 1


def export_nobody(document: dict[str, Any]) -> None:
    document["winner"] = "trial 99"


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (drop_verdict, "key 'verdict' is missing; repeat the search"),
        (misspell, r"unknown key 'contenders.0.cost.flop'; repeat the search"),
        (export_nobody, "winner 'trial 99' is none of the contenders; repeat the search"),
    ],
)
def test_a_damaged_file_is_refused_in_one_sentence(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], said: str
) -> None:
    document = judged(-0.3, -0.1)[0].to_dict()
    damage(document)
    path = tmp_path / "finalists.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=f"finalists.json: {said}"):
        read_finalists(path)
    path.write_text(path.read_text()[:-9])
    with pytest.raises(InputError, match="finalists.json: not a JSON file; repeat the search"):
        read_finalists(path)


def test_files_of_the_release_before_are_read_and_written_alike(tmp_path: Path) -> None:
    earlier = Path(__file__).parents[1] / "workflows" / "earlier_run" / "finalists.json"
    found = read_finalists(earlier)
    assert found is not None
    found.save(tmp_path / "finalists.json")
    assert (tmp_path / "finalists.json").read_bytes() == earlier.read_bytes()
