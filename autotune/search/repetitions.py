"""Trials that compute what another one does, whose result is told again: in this process or on another machine."""

from __future__ import annotations

from optuna.trial import FrozenTrial, TrialState

from autotune.study.trials import Trials, attributes, evaluated, is_repetition

PLAN = "plan"
"""Attribute of a trial: a digest of all that its policy computes."""

_SCORED = (TrialState.COMPLETE, TrialState.PRUNED)


def plans_of(study: Trials) -> set[str | None]:
    """The plans of all trials that were evaluated or are running, which another worker is then about to know."""
    known = [*evaluated(study), *study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))]
    return {attributes(trial).get(PLAN) for trial in known}


def first_of(plan: str, known: Trials) -> FrozenTrial | None:
    """The first trial that computed a plan and was scored."""
    for trial in known.get_trials(deepcopy=False, states=_SCORED):
        if attributes(trial).get(PLAN) == plan and not is_repetition(trial):
            return trial
    return None


def twin_of(number: int, plan: str, seen: Trials) -> int | None:
    """A trial that computed the same plan at the same time as trial ``number``, and counts instead of it."""
    for other in seen.get_trials(deepcopy=False):
        if other.number == number or attributes(other).get(PLAN) != plan or is_repetition(other):
            continue
        sooner = other.state is TrialState.RUNNING and other.number < number
        if sooner or other.state in _SCORED:
            return other.number
    return None
