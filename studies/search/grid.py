"""Policies that a person writes in one line: a solver, a guidance interval, and as many steps as the budget pays for.

Nothing is reused and every step is taken at full size. A search that loses to the best of these is not worth its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from autotune.core.errors import PolicyError
from autotune.cost import Pricer
from autotune.policy import Policy
from search_spaces import SearchSpace
from search_spaces.schedule import PARTS

FOLDER = Path("runs") / "one-liners"
"""Where the studies keep what the grid's policies scored on few tuning prompts."""

SOLVERS = 3
"""Of the space's solvers the first so many, the pipeline's own among them."""

STARTS, STOPS = (0, 2, 4, 6, 8), (10, 12, 14, 16, 18, PARTS)
"""Twentieths of the steps at which guidance begins and ends."""


def grid(space: SearchSpace, pricer: Pricer, budget: float, most_steps: int) -> list[Policy]:
    """Every solver with every guidance interval, each with the most steps within the budget.

    Args:
        space: The model's.
        pricer: Of the model.
        budget: Share of the full run's FLOPs.
        most_steps: Most steps that are considered.
    """
    found = (within(space, pricer, values, budget, most_steps) for values in settings(space))
    return list({policy.key: policy for policy in found if policy is not None}.values())


def settings(space: SearchSpace) -> Iterator[Mapping[str, int]]:
    """Knob values of the grid, those of other intervals left out where the model has no guidance."""
    plain = space.recipes[0].values
    bounds = {knob.name: (knob.low, knob.high) for knob in space.knobs}
    for solver in range(min(SOLVERS, bounds["solver"][1] + 1)):
        for start in STARTS:
            for stop in STOPS:
                values = {**plain, "solver": solver, "guidance_start": start, "guidance_stop": stop}
                if all(bounds[name][0] <= value <= bounds[name][1] for name, value in values.items()):
                    yield values


def on_top(space: SearchSpace, values: Mapping[str, int]) -> Iterator[tuple[str, Mapping[str, int]]]:
    """One of the settings with each known recipe that leaves solver and guidance alone, by the recipe's name."""
    plain = space.recipes[0].values
    for recipe in space.recipes:
        changes = {name: value for name, value in recipe.values.items() if value != plain[name]}
        if changes and not changes.keys() & {"solver", "guidance_start", "guidance_stop", "gate"}:
            yield recipe.name, {**values, **changes}


def within(
    space: SearchSpace, pricer: Pricer, values: Mapping[str, int], budget: float, most_steps: int
) -> Policy | None:
    """Knob values with the most steps whose FLOPs are within the budget; None where not even one is."""

    def fits(policy: Policy) -> bool:
        try:
            return pricer.price(policy).relative <= budget
        except PolicyError:
            return False

    policies = (space.policy(values, steps) for steps in range(most_steps, 0, -1))
    return next(filter(fits, policies), None)
