"""Verdicts of an objective: which losses they are made of, and what an interval of them holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autotune.quality import Baseline, Evaluation, Objective, Weights
from autotune.quality.panel import JUDGES, Judge, Panel
from autotune.quality.verdict import LEAST_PROMPTS
from tests.quality.test_objective import BASELINE, FULL, PROMPTS, REFERENCE, N, aligned, pictures

ALIGNMENT = Weights(0, 1)
PAIRS = 20


@pytest.fixture(scope="module")
def objective() -> Objective:
    return Objective(REFERENCE, BASELINE)


def test_losses_of_all_pictures_are_the_scores(objective: Objective) -> None:
    runs = [pictures(1.5), pictures(1.0, offset=0.05)]
    (found,) = objective.losses(runs, torch.arange(N)[None]).tolist()
    assert found == pytest.approx([objective.score(run).loss for run in runs])


def test_of_a_mean_the_pseudo_values_are_every_prompts_own_loss() -> None:
    objective, run = Objective(REFERENCE, BASELINE, weights=ALIGNMENT), pictures(1.5)
    found = objective.jackknife([run])[:, 0]
    lost = (aligned(FULL) - aligned(run)).double() / (float(aligned(FULL).double().mean()) - objective.chance)
    torch.testing.assert_close(found, lost)


def test_pictures_of_one_prompt_are_left_out_together() -> None:
    prompts = tuple(f"prompt {row // 4}" for row in range(N))
    baseline = Baseline(FULL, BASELINE.coarse, BASELINE.chance, prompts)
    objective = Objective(REFERENCE, baseline, weights=ALIGNMENT)
    alone = Objective(REFERENCE, BASELINE, weights=ALIGNMENT)
    run = pictures(1.5)
    found, single = (each.jackknife([run])[:, 0] for each in (objective, alone))
    torch.testing.assert_close(found, single.view(-1, 4).mean(1))
    assert objective.verdict([run], FULL).prompts == N // 4


def test_of_one_prompt_there_is_an_interval_and_no_verdict() -> None:
    rows = slice(8)
    full = Evaluation(FULL.features[rows], aligned(FULL)[rows])
    assert BASELINE.chance is not None
    baseline = Baseline(full, BASELINE.coarse[rows], BASELINE.chance[rows], ("the same",) * 8)
    objective = Objective(REFERENCE, baseline, weights=ALIGNMENT)
    run = pictures(1.0, seed=5)
    found = objective.verdict([Evaluation(run.features[rows], aligned(run)[rows])], full)
    assert found.difference.low < found.difference.value < found.difference.high
    assert (found.prompts, found.enough, found.better) == (1, False, False)


def test_the_best_finalist_is_found_and_judged(objective: Objective) -> None:
    rival, *finalists = pictures(2.0, offset=0.06), pictures(1.9, offset=0.06), pictures(1.0), pictures(1.5)
    found = objective.verdict(finalists, rival)
    assert found.best == 1 and found.better and found.prompts == N >= LEAST_PROMPTS
    assert found.difference.value == pytest.approx(objective.score(finalists[1]).loss - objective.score(rival).loss)
    other = objective.verdict(finalists, rival, best=2)
    assert other.best == 2 and other.difference.value > found.difference.value


def test_what_is_the_same_is_not_better(objective: Objective) -> None:
    found = objective.verdict([pictures(1.5)], pictures(1.5))
    assert (found.difference.low, found.difference.value, found.difference.high) == (0, 0, 0)
    assert not found.better


def errors(run: Evaluation, values: Tensor) -> Evaluation:
    return Evaluation(run.features, run.alignment, {"another": values})


def test_one_judge_alone_is_asked_of_what_the_panel_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its errors are those of the first pictures, and so is its verdict."""
    monkeypatch.setitem(
        JUDGES, "another", Judge("paired", lambda sources: lambda a, b: torch.zeros(len(a)), "a test's")
    )
    noise = torch.rand(PAIRS, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 10
    baseline = Baseline(
        errors(FULL, torch.zeros(PAIRS)), BASELINE.coarse, BASELINE.chance, PROMPTS, {"another": torch.ones(PAIRS)}
    )
    objective = Objective(REFERENCE, baseline, weights=Panel({"distance": 1.0, "alignment": 4.0, "another": 0.0}))
    near, far = errors(pictures(1.5), 0.2 + noise), errors(pictures(1.0), 0.5 + noise.flip(0))
    alone = objective.by("another")
    assert objective.score(near).loss > objective.score(far).loss
    assert alone.score(near).loss == pytest.approx(0.2 + float(noise.mean()))
    found = alone.verdict([near], far)
    assert found.better and found.prompts == PAIRS
    torch.testing.assert_close(alone.head(PAIRS).jackknife([near.head(PAIRS)])[:, 0], 0.2 + noise)
    # The panel itself stays as it was.
    assert objective.panel.weight("another") == 0 and objective.verdict([far], near).better
