from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import optuna
import pytest
import torch
from optuna.trial import TrialState

from autotune.policy import Guidance, Policy
from autotune.quality import Baseline, Evaluation, Objective, Reference
from autotune.quality.panel import Panel
from autotune.search.pruning import COMPARED, LEAST, LEAST_UNPAIRED, MOST, PairedPruner, first_look, is_behind
from autotune.study.trials import POLICY

PICTURES, DIMENSIONS = 128, 4


def evaluation(degradation: float, pictures: int = PICTURES) -> Evaluation:
    """Pictures that drift from the reference, and from their prompts, by ``degradation``."""
    noise = torch.randn(PICTURES, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    features = (noise + degradation)[:pictures]
    return Evaluation(features, (0.8 + 0.02 * noise[:, 0] - 0.1 * degradation)[:pictures])


def objective() -> Objective:
    reference = Reference.of(torch.randn(500, DIMENSIONS, generator=torch.Generator().manual_seed(1)))
    chance = torch.full((PICTURES,), 0.1)
    prompts = tuple(str(number) for number in range(PICTURES))
    return Objective(reference, Baseline(evaluation(0), evaluation(3).features, chance, prompts), distance="frechet")


@pytest.fixture
def paired() -> PairedPruner:
    return PairedPruner(objective())


@pytest.fixture
def study(paired: PairedPruner) -> optuna.Study:
    return optuna.create_study(pruner=paired)


def test_nobody_gives_up_on_few_pictures(study: optuna.Study, paired: PairedPruner) -> None:
    assert not paired.should_prune(study.ask(), evaluation(3, LEAST_UNPAIRED - 1), evaluation(0))


def test_what_is_behind_the_best_beyond_doubt_is_pruned(study: optuna.Study, paired: PairedPruner) -> None:
    assert paired.should_prune(study.ask(), evaluation(1, COMPARED), evaluation(0))


def test_few_pictures_are_not_compared_with_the_best(study: optuna.Study, paired: PairedPruner) -> None:
    assert not paired.should_prune(study.ask(), evaluation(1, LEAST_UNPAIRED), evaluation(0))


def test_rank_prunes_nothing_that_has_come_far(study: optuna.Study, paired: PairedPruner) -> None:
    for degradation in (0.1, 0.2):
        trial = study.ask()
        for made in range(LEAST_UNPAIRED, MOST + 1, LEAST):
            # Reported as they come, asked about beyond the last look.
            trial.report(degradation, made)
        assert not paired.should_prune(trial, evaluation(degradation, 2 * MOST - LEAST), None)
        study.tell(trial, degradation)


def test_the_first_of_its_rung_that_is_no_worse_than_the_best_goes_on(
    study: optuna.Study, paired: PairedPruner
) -> None:
    assert not paired.should_prune(study.ask(), evaluation(0, COMPARED), evaluation(0.3))


def test_the_comparison_is_with_the_best_of_this_candidate_and_not_of_an_earlier_one(
    study: optuna.Study, paired: PairedPruner
) -> None:
    assert paired.should_prune(study.ask(), evaluation(0.5, COMPARED), evaluation(0))
    assert not paired.should_prune(study.ask(), evaluation(0.4, COMPARED), None)


def test_the_paired_comparison_alone() -> None:
    assert is_behind(objective(), evaluation(1, LEAST), evaluation(0))
    assert not is_behind(objective(), evaluation(0, LEAST), evaluation(0))


def test_the_better_half_and_the_best_four_go_on(study: optuna.Study, paired: PairedPruner) -> None:
    gone_on = []
    for degradation in (0.2, 0.4, 0.1, 0.3, 0.5, 0.45, 0.05, 0.35):
        trial = study.ask()
        should_prune = paired.should_prune(trial, evaluation(degradation, LEAST_UNPAIRED), None)
        study.tell(
            trial,
            None if should_prune else degradation,
            state=TrialState.PRUNED if should_prune else TrialState.COMPLETE,
        )
        gone_on += [] if should_prune else [degradation]
    assert gone_on == [0.2, 0.4, 0.1, 0.3, 0.05], "of the first four none is worse than four others"


def test_fewer_steps_compete_with_one_another(study: optuna.Study, paired: PairedPruner) -> None:
    """Far behind all others, which would end every one of them, the best two go on."""
    for _ in range(8):
        study.tell(_judged(study, paired, Policy(steps=9, guidance=Guidance(stop_step=5)), 0.01)[0], 0.01)
    gone_on = []
    for steps, degradation in enumerate((0.5, 0.6, 0.55, 0.4, 0.52), 4):
        trial, pruned = _judged(study, paired, Policy(steps=steps), degradation)
        state = TrialState.PRUNED if pruned else TrialState.COMPLETE
        study.tell(trial, None if pruned else degradation, state=state)
        gone_on += [] if pruned else [degradation]
    assert gone_on == [0.5, 0.6, 0.55, 0.4]
    _, pruned = _judged(study, paired, Policy(steps=10, guidance=Guidance(stop_step=6)), 0.5)
    assert pruned


def _judged(study: optuna.Study, paired: PairedPruner, policy: Policy, degradation: float) -> tuple[optuna.Trial, bool]:
    trial = study.ask()
    trial.set_user_attr(POLICY, policy.to_dict())
    return trial, paired.should_prune(trial, evaluation(degradation, LEAST_UNPAIRED), None)


def test_the_head_of_an_objective_scores_its_pictures_in_the_unit_of_all() -> None:
    whole = objective()
    assert whole.head(PICTURES).score(evaluation(0.3)) == whole.score(evaluation(0.3))
    assert whole.head(40).score(evaluation(0, 40)).loss == 0
    near = whole.head(64).score(evaluation(0.3, 64)).loss
    assert near == pytest.approx(whole.score(evaluation(0.3)).loss, rel=0.3)
    with pytest.raises(ValueError, match="no first 129"):
        whole.head(PICTURES + 1)


def paired_objective(weights: Mapping[str, float]) -> Objective:
    """With errors of the first 32 pictures, 0.1 for the coarse ones'."""
    reference = Reference.of(torch.randn(500, DIMENSIONS, generator=torch.Generator().manual_seed(1)))
    prompts = tuple(str(number) for number in range(PICTURES))
    full = replace(evaluation(0), errors={"error": torch.zeros(32, dtype=torch.float64)})
    chance = torch.full((PICTURES,), 0.1)
    coarse = {"error": torch.full((32,), 0.1, dtype=torch.float64)}
    baseline = Baseline(full, evaluation(3).features, chance, prompts, coarse)
    return Objective(reference, baseline, distance="frechet", weights=Panel(weights))


def with_errors(error: float, made: int, degradation: float = 0.0) -> Evaluation:
    return replace(evaluation(degradation, made), errors={"error": torch.full((min(made, 32),), error).double()})


def test_pairs_tell_after_eight_pictures() -> None:
    paired = PairedPruner(paired_objective({"distance": 1.0, "error": 1.0}))
    study = optuna.create_study(pruner=paired)
    assert first_look(paired_objective({"distance": 1.0, "error": 1.0}).panel) == LEAST
    for error, pruned in ((0.02, False), (0.04, True), (0.01, False), (0.03, True)):
        trial = study.ask()
        assert paired.should_prune(trial, with_errors(error, LEAST), None) == pruned
        study.tell(trial, None if pruned else error, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)


@pytest.mark.parametrize("made", [LEAST, 16, 32])
def test_the_first_looks_are_blind_to_distances_and_later_ones_are_not(made: int) -> None:
    objective = paired_objective({"distance": 1.0, "error": 1.0})
    near, far = with_errors(0.02, made), with_errors(0.02, made, degradation=0.5)
    early = objective.early(made)
    assert early.score(near).loss == early.score(far).loss == pytest.approx(0.2)
    assert early.score(far).distance > early.score(near).distance
    assert objective.early(64).score(with_errors(0.02, 64, 0.5)).loss > 0.21
    whole = objective.head(made)
    assert whole.early(made).score(far).loss == whole.score(far).loss > 0.2
    alone = paired_objective({"distance": 1.0, "alignment": 4.0})
    assert alone.early(made).score(far).loss == alone.head(made).score(far).loss
