"""Three ways to spend less: fewer steps, cheaper steps, or both, each as a search space of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.core.naming import FEWER_STEPS
from autotune.results.tradeoff import CHEAPER, FEWER
from autotune.search.proposer import Proposer
from autotune.search.recipes import PricedRecipe

if TYPE_CHECKING:
    from autotune.cost import Limits
    from search_spaces import Recipe, SearchSpace


def proposer_for(arm: str, proposer: Proposer, limits: Limits, full_steps: int) -> Proposer:
    """What proposes policies of one arm within ``limits``.

    Args:
        arm: ``fewer steps``: every step computes all, the budget decides how many there are, solver and noise levels
            are free. ``cheaper steps``: there are as many as the full run has, everything else is free. ``both``: all
            is free, as in any search.
        proposer: Of ``both``, within any limits.
        limits: What no proposal exceeds.
        full_steps: Steps of the full run.
    """
    space = proposer.space
    if arm == FEWER:
        plain = space.recipes[0].values
        return proposer.restricted(
            limits, space=space.fixed({name: plain[name] for name in plain if name not in space.of_steps})
        )
    return proposer.restricted(limits, steps=full_steps if arm == CHEAPER else None)


def known_recipes(arm: str, proposer: Proposer) -> tuple[PricedRecipe, ...]:
    """The space's recipes at the budget, those that come out as the same policy once; none where it pays for none.

    Args:
        arm: What ``proposer`` is for.
        proposer: From :func:`proposer_for`.
    """
    found: dict[str, PricedRecipe] = {}
    for recipe in proposer.space.recipes:
        proposal = proposer.propose(recipe.values)
        if proposal is None:
            continue
        name = recipe.name
        if arm == CHEAPER and is_plain(proposer.space, recipe):
            if proposal.values != recipe.values:
                # As many plain steps as the full run's: made cheaper, they are some other recipe.
                continue
            name = name.replace(FEWER_STEPS, "all steps")
        elif arm == CHEAPER and proposal.values != recipe.values:
            name = f"{name}, brought to the budget"
        found.setdefault(proposal.policy.key, PricedRecipe(name, proposal))
    return tuple(found.values())


def is_plain(space: SearchSpace, recipe: Recipe) -> bool:
    """Whether every step of a recipe computes all."""
    return space.changed(recipe.values).keys() <= set(space.of_steps)
