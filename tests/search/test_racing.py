from __future__ import annotations

import optuna
import pytest
import torch
from optuna.trial import TrialState

from autotune.quality import Baseline, Evaluation, Objective, Reference
from autotune.search.racing import LEAST, Race, pruner

PICTURES, DIMENSIONS = 128, 4


def evaluation(harm: float, pictures: int = PICTURES) -> Evaluation:
    """Pictures that drift from the reference, and from their prompts, by ``harm``."""
    noise = torch.randn(PICTURES, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    features = (noise + harm)[:pictures]
    return Evaluation(features, (0.8 + 0.02 * noise[:, 0] - 0.1 * harm)[:pictures])


def objective() -> Objective:
    reference = Reference.of(torch.randn(500, DIMENSIONS, generator=torch.Generator().manual_seed(1)))
    chance = torch.full((PICTURES,), 0.1)
    prompts = tuple(str(number) for number in range(PICTURES))
    return Objective(reference, Baseline(evaluation(0), evaluation(3).features, chance, prompts), distance="frechet")


@pytest.fixture
def study() -> optuna.Study:
    return optuna.create_study(pruner=pruner())


def test_nobody_gives_up_on_few_pictures(study: optuna.Study) -> None:
    assert not Race(objective()).lost(study.ask(), evaluation(3, LEAST - 1), evaluation(0))


def test_what_is_behind_the_best_beyond_doubt_is_given_up(study: optuna.Study) -> None:
    race = Race(objective())
    assert race.lost(study.ask(), evaluation(1, LEAST), evaluation(0))
    # The first of its rung is within the better half, and no worse than the best.
    assert not Race(objective()).lost(optuna.create_study(pruner=pruner()).ask(), evaluation(0, LEAST), evaluation(0.3))


def test_only_the_better_half_goes_on(study: optuna.Study) -> None:
    race, gone_on = Race(objective()), []
    for harm in (0.2, 0.4, 0.1, 0.3, 0.5, 0.05):
        trial = study.ask()
        lost = race.lost(trial, evaluation(harm, LEAST), None)
        study.tell(trial, None if lost else harm, state=TrialState.PRUNED if lost else TrialState.COMPLETE)
        gone_on += [] if lost else [harm]
    assert gone_on == [0.2, 0.1, 0.05]


def test_the_head_of_an_objective_scores_its_pictures_in_the_unit_of_all() -> None:
    whole = objective()
    assert whole.head(PICTURES).score(evaluation(0.3)) == whole.score(evaluation(0.3))
    assert whole.head(40).score(evaluation(0, 40)).loss == 0
    near = whole.head(64).score(evaluation(0.3, 64)).loss
    assert near == pytest.approx(whole.score(evaluation(0.3)).loss, rel=0.3)
    with pytest.raises(ValueError, match="no first 129"):
        whole.head(PICTURES + 1)
