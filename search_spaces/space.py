"""Knobs, recipes and the search space they make up. No model is needed to read this, and no Optuna."""

from __future__ import annotations

import copy
import random
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self

from autotune.core.errors import InputError, did_you_mean
from autotune.policy import Policy
from search_spaces.earlier import completed
from search_spaces.knobs import Knob
from search_spaces.levers import Ask, Lever, asked, drawn, nearby

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


@dataclass(frozen=True)
class Recipe:
    """A setting people already use, tried before anything is searched."""

    name: str
    values: Mapping[str, int]


class SearchSpace(ABC):
    """A family's knobs, and the pure function from their values to a policy.

    The number of steps is no knob: a search solves it from the budget, so that no candidate
    is over budget and none leaves much of it unused (:mod:`autotune.search.proposer`).

    Attributes:
        knobs: What may vary.
        repair_order: Knob and direction in which each makes a policy cost more, in the order in which
            a setting too cheap for its budget is repaired. Followed to the end it leads to the
            setting that accelerates nothing.
        recipes: Known settings. The first one is ``"fewer steps"``: nothing but the step count changes.
        levers: What its knobs make a policy do, each of which about half of all draws leave alone.
        of_steps: Names of the knobs that say which steps are taken, by what solver and at what noise; all others say
            what a step computes.
        of_guidance: Names of the knobs that say in which steps guidance runs and how strong it is there, and nothing
            else.
        default_steps: Steps of sampled policies where the caller names none.
    """

    knobs: tuple[Knob, ...]
    repair_order: tuple[tuple[str, Literal[-1, 1]], ...]
    recipes: tuple[Recipe, ...]
    default_steps: int
    levers: tuple[Lever, ...] = ()
    of_steps: tuple[str, ...] = ()
    of_guidance: tuple[str, ...] = ()

    @abstractmethod
    def policy(self, values: Mapping[str, int], steps: int) -> Policy:
        """The policy that a value for every knob stands for, in canonical form.

        Pure; values whose plans are the same give equal policies, so that :attr:`Policy.key`
        recognises a policy that was evaluated before.

        Raises:
            InputError: a knob is missing, unknown, or out of its range.
        """

    def changed(self, values: Mapping[str, int]) -> dict[str, int]:
        """Those of ``values`` that are not what fewer steps have."""
        plain = self.recipes[0].values
        return {name: value for name, value in values.items() if value != plain[name]}

    def fixed(self, values: Mapping[str, int]) -> Self:
        """This space with some knobs at one value each."""
        return self.within({name: (value, value) for name, value in values.items()})

    def explicit_noise_levels(self, policy: Policy) -> Policy:
        """The policy with its noise levels as a list, where its solver takes one, for :func:`search_spaces.moved`.

        They are the solver's own, but for flows whose scheduler ends closer to zero than pipelines usually let it.
        """
        return policy

    def within(self, ranges: Mapping[str, tuple[int, int]]) -> Self:
        """This space with other ranges for some knobs, both ends included; equal ends fix a knob.

        Recipes are moved into the ranges, but for the first: fewer steps are what everything is compared with.

        Raises:
            InputError: a knob that the space does not have, or a bound that means nothing.
        """
        names = [knob.name for knob in self.knobs]
        for name in ranges:
            if name not in names:
                raise InputError(f"the search space has no knob {name!r}{did_you_mean(name, names)}")
        space = copy.copy(self)
        space.knobs = tuple(knob.within(*ranges[knob.name]) if knob.name in ranges else knob for knob in self.knobs)

        def moved(recipe: Recipe) -> Recipe:
            bounds = {knob.name: (knob.low, knob.high) for knob in space.knobs}
            return replace(
                recipe,
                values={
                    name: min(max(value, bounds[name][0]), bounds[name][1]) for name, value in recipe.values.items()
                },
            )

        first, *others = self.recipes
        space.recipes = (first, *(moved(recipe) for recipe in others))
        return space

    def values_of(self, trial: BaseTrial) -> dict[str, int]:
        """Ask ``trial`` for a value of every knob."""
        return {knob.name: trial.suggest_int(knob.name, knob.low, knob.high) for knob in self.knobs}

    def drawn(self, ask: Ask, *, conditional: bool = True) -> dict[str, int]:
        """Values of all knobs, of which each lever is off in about half of all cases; see :mod:`search_spaces.levers`.

        Args:
            ask: Is asked for switches and knobs by name and range.
            conditional: Whether it is spared the knobs of levers that are off.
        """
        return drawn(self.levers, self.knobs, self.recipes[0].values, ask, conditional=conditional)

    def asked(self, values: Mapping[str, int], *, conditional: bool = True) -> dict[str, tuple[int, int, int]]:
        """What :meth:`drawn` would have asked for to arrive at ``values``: answers and their bounds by name."""
        return asked(self.levers, self.knobs, self.recipes[0].values, values, conditional=conditional)

    def nearby(self, values: Mapping[str, int], draw: random.Random) -> dict[str, int]:
        """Knob values after one small change: a lever turned on or off, or one of its knobs moved."""
        return nearby(self.levers, self.knobs, self.recipes[0].values, values, draw)

    def other_intervals(self, values: Mapping[str, int], steps: int) -> Iterator[dict[str, int]]:
        """Knob values of a policy of so many steps with guidance from a step earlier or later on, or as far.

        What a person would try next comes first: more guidance, then as much at other noise, then less. Nothing where
        there is no guidance to place.
        """
        yield from ()

    def stronger(self, values: Mapping[str, int], steps: int) -> Iterator[dict[str, int]]:
        """Knob values of a policy of so many steps with guidance a little stronger where it runs; nothing where that
        is all of the steps, or as strong as the ranges let it.
        """
        yield from ()

    def from_trial(self, trial: BaseTrial, steps: int | None = None) -> Policy:
        """The policy of an Optuna trial, running ``steps`` steps (None: ``default_steps``).

        The trial is asked for a switch of every lever, and for the knobs of those that are on. One that has ended, or
        is fixed, may have all knobs and no switches instead, as those of a search do, and one that has ended may lack
        knobs that came later.
        """
        try:
            values = self.drawn(trial.suggest_int)
        except ValueError:  # What such a trial says of a parameter that it does not have.
            names = {knob.name for knob in self.knobs}
            values = completed(trial.params, names)
            values = values if values.keys() == names else self.values_of(trial)
        return self.policy(values, self.default_steps if steps is None else steps)

    def sample(self, seed: int, steps: int | None = None) -> Policy:
        """A random policy: every lever off half of the time, its knobs uniform over their ranges otherwise.

        It is the same for the same ``seed``.
        """
        draw = random.Random(seed)
        values = self.drawn(lambda name, low, high: draw.randint(low, high))
        return self.policy(values, self.default_steps if steps is None else steps)

    def check(self, values: Mapping[str, int]) -> None:
        """Raise InputError unless ``values`` has exactly one value that means something for every knob."""
        names = [knob.name for knob in self.knobs]
        for name in values:
            if name not in names:
                raise InputError(f"the search space has no knob {name!r}{did_you_mean(name, names)}")
        for knob in self.knobs:
            if knob.name not in values:
                raise InputError(f"knob {knob.name!r} has no value; give one from {knob.low} to {knob.high}")
            least, most = knob.limits
            if not least <= values[knob.name] <= most:
                raise InputError(f"knob {knob.name!r} is {values[knob.name]}; give a value from {least} to {most}")
