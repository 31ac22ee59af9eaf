"""A candidate that a sampler draws before there is a trial of it, which can then be written in one transaction.

Optuna makes an empty trial, writes what its sampler draws one by one, and reads the study in between.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.study.optuna_internals import id_of


@dataclass(frozen=True)
class Candidate:
    """A trial to be: values of its knobs, and its attributes."""

    values: Mapping[str, int]
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)


def draw(
    sampler: BaseSampler, knobs: Callable[[optuna.Trial], Mapping[str, int]], trials: Sequence[FrozenTrial]
) -> Candidate:
    """What a sampler proposes, and notes of it.

    Args:
        sampler: Draws it.
        knobs: Asks a trial for the values of all knobs.
        trials: All trials of the study, which the sampler learns from.
    """
    snapshot = _StorageSnapshot(trials)
    study = optuna.create_study(storage=snapshot, sampler=sampler)
    values = knobs(study.ask())
    return Candidate(values, system_attrs=snapshot.candidate.system_attrs)


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
