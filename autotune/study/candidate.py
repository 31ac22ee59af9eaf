"""A candidate that a sampler draws before there is a trial of it, which can then be written in one transaction.

Optuna makes an empty trial, writes what its sampler draws one by one, and reads the study in between.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.study.optuna_internals import id_of
from search_spaces import SearchSpace
from search_spaces.earlier import completed


@dataclass(frozen=True)
class Candidate:
    """A trial to be: values of its knobs, and its attributes."""

    values: Mapping[str, int]
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)


def draw(sampler: BaseSampler, space: SearchSpace, trials: Sequence[FrozenTrial], *, conditional: bool) -> Candidate:
    """What a sampler proposes, and notes of it.

    The sampler is shown the trials as if they had been asked for switches of levers and knobs, as the new one is.

    Args:
        sampler: Draws it.
        space: What is searched.
        trials: All trials of the study, which the sampler learns from. Their parameters are the space's knobs.
        conditional: Whether the sampler understands that a lever that is off has no knobs.
    """
    snapshot = _StorageSnapshot([_as_asked(trial, space, conditional=conditional) for trial in trials])
    study = optuna.create_study(storage=snapshot, sampler=sampler)
    values = space.drawn(study.ask().suggest_int, conditional=conditional)
    return Candidate(values, system_attrs=snapshot.candidate.system_attrs)


def _as_asked(trial: FrozenTrial, space: SearchSpace, *, conditional: bool) -> FrozenTrial:
    """A trial with the parameters that drawing its knobs would have given it; none where it does not have all knobs.

    Of those that came later than the trial it has the values that do nothing.
    """
    seen = copy.copy(trial)
    names = {knob.name for knob in space.knobs}
    values = completed(trial.params, names) if trial.params else {}
    found = space.asked(values, conditional=conditional) if values.keys() == names else {}
    seen.params = {name: value for name, (value, _, _) in found.items()}
    seen.distributions = {name: IntDistribution(low, high) for name, (_, low, high) in found.items()}
    return seen


class _StorageSnapshot(InMemoryStorage):
    """What a study holds at one time, and one trial more, which exists here only."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._others = [trial for trial in trials if trial.state is not TrialState.WAITING]
        self.candidate = create_trial(state=TrialState.RUNNING)
        self.candidate.number = len(trials)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        return id_of(self.candidate)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return self.candidate

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        found = [each for each in (*self._others, self.candidate) if states is None or each.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        self.candidate.params[param_name] = distribution.to_external_repr(param_value_internal)
        self.candidate.distributions[param_name] = distribution

    def set_trial_system_attr(self, trial_id: int, key: str, value: object) -> None:
        self.candidate.system_attrs[key] = value
