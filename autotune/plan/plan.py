"""The plan as data: for every call of the denoiser, what every unit does.

Pricing and running read the same plan; that is why a price is exact.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property

from autotune.plan.guidance import Guided
from autotune.plan.structure import Structure

Group = tuple[int, ...]
Sources = tuple[tuple[int, float], ...]


def is_weighted(terms: Sources) -> bool:
    """Whether taking ``terms`` is more than taking one result as it is."""
    return len(terms) > 1 or terms[0][1] != 1


class Action(IntEnum):
    """What a unit does in a call.

    RESIDUAL adds the last computed output minus input, or what the last of them lead to, to the present input.
    """

    COMPUTE = 0
    REUSE = 1
    FORECAST = 2
    RESIDUAL = 3
    NOT_NEEDED = 4


@dataclass(frozen=True, eq=False)
class Pattern:
    """What the units do in one call of the denoiser, but for how many results a reuse takes.

    Calls that do the same share one pattern, compared by identity.
    """

    actions: tuple[Action, ...]

    @cached_property
    def computed(self) -> tuple[int, ...]:
        """The units that compute."""
        return tuple(unit for unit, action in enumerate(self.actions) if action is Action.COMPUTE)

    @cached_property
    def taken(self) -> frozenset[int]:
        """The units that take from memory."""
        return frozenset(unit for unit, action in enumerate(self.actions) if action in (Action.REUSE, Action.RESIDUAL))


@dataclass(frozen=True)
class DenoiserCall:
    """One evaluation of the denoiser and the scheduler's step after it.

    Units that do the same as one another throughout a plan are planned together, as a group.

    Attributes:
        index: which call of the denoiser, counted over the whole schedule.
        step: which of the policy's steps it belongs to; second-order solvers call twice a step.
        height, width: of the latents.
        guidance: which branches are computed if the pipeline's call is guided.
        factor: what guidance adds is multiplied by it; 1 where it does not run.
        branches: 2 where the conditional and the unconditional branch are computed, else 1.
        pattern: what the units do.
        taken: groups that take from memory, each with which of its earlier results: pairs of the
            call they were computed in and their weight. The weights of an order sum to 1, fitted ones need not.
        kept: groups whose result of this call is taken later.
        dropped: kept results (group, call) that nobody takes after this call.
        fresh: nothing computed before can serve (first call, another resolution, a branch that did not run before).
        handoff: how the latents reach the next stage's size after this call.
    """

    index: int
    step: int
    height: int
    width: int
    guidance: Guided
    factor: float
    branches: int
    pattern: Pattern
    taken: tuple[tuple[Group, Sources], ...]
    kept: tuple[Group, ...]
    dropped: tuple[tuple[Group, int], ...]
    fresh: bool
    handoff: str | None

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        """One entry per unit."""
        forecast = {unit for group, terms in self.taken if is_weighted(terms) for unit in group}
        return tuple(
            Action.FORECAST if unit in forecast and action is Action.REUSE else action
            for unit, action in enumerate(self.pattern.actions)
        )

    @cached_property
    def sources(self) -> Mapping[int, Sources]:
        """What every unit that takes from memory takes."""
        return {unit: terms for group, terms in self.taken for unit in group}

    @cached_property
    def keep(self) -> frozenset[int]:
        """Units whose result of this call is taken later."""
        return frozenset(unit for group in self.kept for unit in group)

    @cached_property
    def drop(self) -> frozenset[tuple[int, int]]:
        """Kept results (unit, call) that nobody takes after this call."""
        return frozenset((unit, call) for group, call in self.dropped for unit in group)


@dataclass(frozen=True)
class Plan:
    """``residuals`` are the units that keep output minus input, with the first block of their range."""

    structure: Structure
    steps: tuple[DenoiserCall, ...]
    residuals: Mapping[int, int]

    @cached_property
    def guided(self) -> bool:
        """Whether any call computes both branches of guidance."""
        return any(step.branches > 1 for step in self.steps)

    @cached_property
    def _reuses_any_difference(self) -> bool:
        """Whether any call does: most plans have none, and prices ask of every call."""
        return self.guided and any(step.guidance is Guided.DIFFERENCE for step in self.steps)

    def reuses_difference(self, position: int) -> bool:
        """Whether the last difference of the branches stands in for the unconditional one; not after the last call."""
        return self.guided and position < len(self.steps) and self.steps[position].guidance is Guided.DIFFERENCE

    def factor(self, position: int) -> float:
        """What guidance adds in a call is multiplied by this; 1 where there is none."""
        return self.steps[position].factor if self.guided else 1.0

    def holds_difference(self, position: int) -> bool:
        """Whether the difference of the branches is in memory as a call ends: it or the next one reuses it."""
        if not self._reuses_any_difference:
            return False
        return self.reuses_difference(position) or self.reuses_difference(position + 1)

    @cached_property
    def digest(self) -> str:
        """A hash of what every step does, equal for plans that compute the same whatever their policies say."""
        calls = [
            (
                step.height,
                step.width,
                step.branches,
                tuple(map(int, step.pattern.actions)),
                sorted(step.sources.items()),
                step.handoff,
                # Names that came later count only where they are used.
                *(["difference"] if self.reuses_difference(position) else []),
                *(["factor", self.factor(position)] if self.factor(position) != 1 else []),
            )
            for position, step in enumerate(self.steps)
        ]
        return hashlib.sha256(repr((calls, sorted(self.residuals.items()))).encode()).hexdigest()[:16]
