"""Known recipes together.

Most recipes change one thing: the solver, the guidance, what is reused, the size of the first steps. What each gains
on its own, at equal compute, says which of them are worth trying together.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations

from autotune.search.proposer import Proposer
from autotune.search.trial_runner import PLAN
from autotune.study.candidate import Candidate
from autotune.study.trials import COMBINES, RECIPE, Trials, attributes, evaluated

COMBINED = 2
"""Combinations that a search tries. In replays a third cost more than it brought (``studies/search_efficiency.py``)."""

_MOST_RECIPES = 3


@dataclass(frozen=True)
class _Effect:
    """What a recipe changes, and by how much its loss exceeds fewer steps'."""

    recipe: str
    changes: Mapping[str, int]
    excess: float


def combination(study: Trials, proposer: Proposer) -> Candidate | None:
    """The two or three recipes that promise most together, as a trial to be; None once enough were tried.

    Recipes go together where they change different knobs. What they promise is the sum of what each of them changed
    in the loss.

    Args:
        study: Has the trials of the recipes.
        proposer: Brings combinations to the budget.
    """
    if sum(COMBINES in trial.user_attrs for trial in study.get_trials(deepcopy=False)) >= COMBINED:
        return None
    known = {attributes(trial).get(PLAN) for trial in evaluated(study)}
    plain = proposer.space.recipes[0].values
    bounds = {knob.name: range(knob.low, knob.high + 1) for knob in proposer.space.knobs}
    for recipes in sorted(_compatible(_effects(study, plain)), key=lambda each: sum(one.excess for one in each)):
        values = {**plain, **{name: value for one in recipes for name, value in one.changes.items()}}
        # The ranges may have been narrowed so far that not even fewer steps are within.
        proposal = proposer.propose(values) if all(values[name] in bounds[name] for name in bounds) else None
        if proposal is not None and proposer.plan(proposal.policy) not in known:
            return Candidate(proposal.values, user_attrs={COMBINES: [one.recipe for one in recipes]})
    return None


def _effects(study: Trials, plain: Mapping[str, int]) -> list[_Effect]:
    """Of all recipes that were evaluated; pruned ones count with the pictures they made.

    Where fewer steps were not, as many as the full run's being over the budget, the usual recipe stands for them.
    """
    found = []
    for trial in evaluated(study):
        # Failed ones have no values.
        if RECIPE in trial.user_attrs and trial.values:
            changes = {name: value for name, value in trial.params.items() if value != plain[name]}
            found.append(_Effect(trial.user_attrs[RECIPE], changes, trial.values[0]))
    losses = [effect.excess for effect in found]
    usual = next((effect.excess for effect in found if not effect.changes), statistics.median(losses) if losses else 0)
    return [replace(effect, excess=effect.excess - usual) for effect in found if effect.changes]


def _compatible(effects: list[_Effect]) -> Iterator[tuple[_Effect, ...]]:
    for count in range(2, _MOST_RECIPES + 1):
        for some in combinations(effects, count):
            names = [name for one in some for name in one.changes]
            if len(names) == len(set(names)):
                yield some
