"""Known recipes together: the screening.

Most recipes change one thing: the solver, the guidance, what is reused, the size of the first steps. Solvers and noise
levels are crossed with guidance first, before anything is reused: both decide what happens at which noise, so that what
either gains alone says little of the two together, and a person would write nothing else. Once all recipes were tried,
what each gains on its own, at equal compute, says which pairs are worth trying, and these say what follows
(:mod:`autotune.search.effects`). Simple policies thus come before policies that do many things at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, product

from optuna.trial import FrozenTrial, TrialState

from autotune.search.candidate_scores import PICTURES
from autotune.search.effects import Effects, Observation
from autotune.search.proposer import Proposer
from autotune.search.repetitions import plans_of
from autotune.study.candidate import Candidate
from autotune.study.trials import COMBINES, RECIPE, Trials, attributes, evaluated

COMBINED = 1 / 3
"""Share of a search's candidates that are combinations at most."""

CROSSED = 1 / 5
"""Share that cross solvers and noise levels with guidance at most. Most of them are stopped after a few pictures."""

_FIRST, _MOST_RECIPES = 2, 3
# Of a difference from fewer steps on so many pictures of the same prompts, as shipped models have it.
_NOISE, _NOISE_PICTURES = 0.1, 32
# Combinations that promise less, in the loss's unit, are left to the sampler.
_LEAST_IMPROVEMENT = 0.002


def combination(
    study: Trials, proposer: Proposer, trials: int, *, queued: Sequence[FrozenTrial] = (), late: bool = False
) -> Candidate | None:
    """The two or three recipes that promise most together, as a trial to be; None where one has to wait, or no more.

    Recipes go together where they change different knobs; three only where two of them were tried together.

    Args:
        study: Has the trials of the recipes.
        proposer: Brings combinations to the budget.
        trials: Candidates of the whole search.
        queued: Trials that wait. While there are any solvers are crossed with guidance, once all recipes of both have
            begun; nothing else is combined.
        late: Whether the last third, which belongs to neighbours of the best, has begun: solvers are still crossed with
            guidance, nothing else is combined.
    """
    if queued and not _changes_something_else(queued[0], proposer):
        return None
    begun = sum(COMBINES in trial.user_attrs for trial in study.get_trials(deepcopy=False))
    crosses = begun < CROSSED * trials
    if begun >= COMBINED * trials or ((queued or late) and not crosses):
        return None
    tried = evaluated(study)
    plain = proposer.space.recipes[0].values
    changes = {
        trial.user_attrs[RECIPE]: proposer.space.changed(trial.params)
        for trial in tried
        # Failed ones have no values.
        if RECIPE in trial.user_attrs and trial.values
    }
    observed = _observed(tried, changes)
    if not observed:
        return None
    effects = Effects(observed)
    known = plans_of(study)
    bounds = {knob.name: range(knob.low, knob.high + 1) for knob in proposer.space.knobs}
    crossed = _crossed(effects, changes, proposer) if crosses else []
    promising = [] if late or queued else _promising(effects, changes, {each.settings for each in observed})
    for recipes in [*crossed, *promising]:
        values = {**plain, **{name: value for recipe in recipes for name, value in changes[recipe].items()}}
        # The ranges may have been narrowed so far that not even fewer steps are within.
        proposal = proposer.propose(values) if all(values[name] in bounds[name] for name in bounds) else None
        if proposal is not None and proposer.plan(proposal.policy) not in known:
            return Candidate(proposal.values, user_attrs={COMBINES: list(recipes)})
    return None


def _changes_something_else(queued: FrozenTrial, proposer: Proposer) -> bool:
    """Whether a trial that waits is a recipe that does not only change solver, noise levels and guidance."""
    space = proposer.space
    simple = {*space.of_steps, *space.of_guidance}
    name = queued.user_attrs.get(RECIPE)
    return any(recipe.name == name and not space.changed(recipe.values).keys() <= simple for recipe in space.recipes)


def _crossed(effects: Effects, changes: Mapping[str, Mapping[str, int]], proposer: Proposer) -> list[tuple[str, ...]]:
    """Recipes of solver and noise levels, each with each of guidance alone, those that gained most first."""
    of_steps, guidance = proposer.space.of_steps, proposer.space.of_guidance
    steps, guided = (
        [name for name, changed in changes.items() if changed and changed.keys() <= set(knobs)]
        for knobs in (of_steps, guidance)
    )
    return sorted(product(steps, guided), key=lambda recipes: (effects.predict(recipes)[0], recipes))


def _promising(
    effects: Effects, changes: Mapping[str, Mapping[str, int]], observed: Collection[frozenset[str]]
) -> list[tuple[str, ...]]:
    """What is expected to improve on the best so far, the largest improvement first.

    Args:
        effects: Learned so far.
        changes: Knobs that each recipe changes.
        observed: What was tried together.
    """
    pairs = [settings for settings in observed if len(settings) == _FIRST]
    improvements = {
        recipes: effects.improvement(recipes)
        for recipes in _compatible(changes)
        # Where nothing is known of pairs, three promise most for being unknown.
        if len(recipes) == _FIRST or any(pair < set(recipes) for pair in pairs)
    }
    promising = [recipes for recipes, improvement in improvements.items() if improvement >= _LEAST_IMPROVEMENT]
    # The names decide between equals, so that every worker does alike.
    return sorted(promising, key=lambda recipes: (-improvements[recipes], recipes))


def _observed(tried: list[FrozenTrial], changes: Mapping[str, Mapping[str, int]]) -> list[Observation]:
    """Recipes and combinations of them, each compared with fewer steps on as many pictures as both have.

    Where fewer steps were not evaluated, as many as the full run's being over the budget, the best recipe stands for
    them.
    """
    own = [trial for trial in tried if trial.values and trial.user_attrs.get(RECIPE) in changes]
    if not own:
        return []
    usual = min(own, key=lambda trial: (bool(changes[trial.user_attrs[RECIPE]]), trial.values[0]))
    found = []
    for trial in tried:
        names = trial.user_attrs.get(COMBINES) or [trial.user_attrs.get(RECIPE)]
        settings = frozenset(name for name in names if changes.get(name))
        if trial.values and settings:
            excess, pictures = _excess(trial, usual)
            found.append(Observation(settings, excess, _NOISE * math.sqrt(_NOISE_PICTURES / pictures)))
    return found


def _excess(trial: FrozenTrial, usual: FrozenTrial) -> tuple[float, int]:
    """How much more a candidate lost than another on the same pictures, and how many these were."""
    common = trial.intermediate_values.keys() & usual.intermediate_values.keys()
    if not common or trial.state == usual.state == TrialState.COMPLETE:
        return trial.values[0] - usual.values[0], attributes(trial).get(PICTURES) or _NOISE_PICTURES
    most = max(common)
    return trial.intermediate_values[most] - usual.intermediate_values[most], most


def _compatible(changes: Mapping[str, Mapping[str, int]]) -> Iterator[tuple[str, ...]]:
    recipes = sorted(name for name, changed in changes.items() if changed)
    for count in range(_FIRST, _MOST_RECIPES + 1):
        for some in combinations(recipes, count):
            names = [name for recipe in some for name in changes[recipe]]
            if len(names) == len(set(names)):
                yield some
