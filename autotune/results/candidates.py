"""Which candidates of a search compete in the last round, and which fewer steps they compete with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import optuna
from optuna.trial import FrozenTrial

from autotune.policy import Policy
from autotune.policy.words import computes_everything
from autotune.results.finalists import EvaluatedPolicy
from autotune.study.trials import REFINES, policy_of, ranked


def best_trials(
    studies: Sequence[optuna.Study],
    count: int,
    exclude: Callable[[Policy], bool] = lambda policy: False,
    within: Callable[[Policy], bool] = lambda policy: True,
) -> list[EvaluatedPolicy]:
    """The ``count`` candidates with the lowest losses, best first and none twice.

    The best of all that local search derived from one another stands for them, while there are others: they do well or
    badly together, and one that chance favoured brings its neighbours along.

    Args:
        studies: Whose losses mean the same.
        count: How many to find.
        exclude: Whether a policy has no part, such as one that is in the last round already.
        within: Whether a policy is within the budget.
    """
    origins = {study.study_name: _origins(study) for study in studies}
    keys: set[str] = set()
    kin: set[tuple[str, int]] = set()
    found: list[tuple[bool, EvaluatedPolicy]] = []
    for trial, study in _by_loss(studies):
        candidate = EvaluatedPolicy(study.study_name, trial.number, policy_of(trial))
        if candidate.policy.key in keys or exclude(candidate.policy) or not within(candidate.policy):
            continue
        origin = study.study_name, origins[study.study_name][trial.number]
        found.append((origin in kin, candidate))
        keys.add(candidate.policy.key)
        kin.add(origin)
        if len(kin) == count:
            break
    chosen = sorted(range(len(found)), key=lambda place: found[place][0])[:count]
    return [found[place][1] for place in sorted(chosen)]


def best_fewer_steps(
    studies: Sequence[optuna.Study], plain: EvaluatedPolicy, within: Callable[[Policy], bool] = lambda policy: True
) -> EvaluatedPolicy:
    """The policy with the lowest loss of those that spend less by fewer steps alone, whatever solver and noise levels.

    Args:
        studies: Whose losses mean the same.
        plain: The pipeline's own solver and spacing, which it is where no candidate does better.
        within: Whether a policy is within the budget.
    """
    for trial, study in _by_loss(studies):
        policy = policy_of(trial)
        if computes_everything(policy) and within(policy):
            return plain if policy.key == plain.policy.key else EvaluatedPolicy(study.study_name, trial.number, policy)
    return plain


def _by_loss(studies: Sequence[optuna.Study]) -> list[tuple[FrozenTrial, optuna.Study]]:
    trials = [(trial, study) for study in studies for trial in ranked(study)]
    return sorted(trials, key=lambda each: (each[0].values[0], each[0].number))


def _origins(study: optuna.Study) -> dict[int, int]:
    """Of every trial, that which local search began with; of all others themselves."""
    origins: dict[int, int] = {}
    for trial in study.get_trials(deepcopy=False):
        before = trial.user_attrs.get(REFINES, trial.number)
        origins[trial.number] = origins.get(before, before)
    return origins
