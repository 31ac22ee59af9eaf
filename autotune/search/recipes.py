"""What people already do, brought to the budget: the candidates every search starts with."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.core.errors import InputError
from autotune.core.naming import FEWER_STEPS
from autotune.search.proposer import Proposal, Proposer


@dataclass(frozen=True)
class PricedRecipe:
    """A known setting at the budget; ``proposal.values`` are what Optuna's ``enqueue_trial`` takes."""

    name: str
    proposal: Proposal


def recipes_at_budget(proposer: Proposer) -> tuple[PricedRecipe, ...]:
    """The space's recipes, first of all fewer steps, each with as many steps as the budget pays for.

    The full run is not among them: it is over every budget, and serves as the reference instead.
    Recipes that come out as the same policy are given once.

    Raises:
        InputError: the budget pays for not even one plain step.
    """
    found: dict[str, PricedRecipe] = {}
    for recipe in proposer.space.recipes:
        proposal = proposer.propose(recipe.values)
        if proposal is not None:
            found.setdefault(proposal.policy.key, PricedRecipe(recipe.name, proposal))
    recipes = tuple(found.values())
    if not recipes or recipes[0].name != FEWER_STEPS:
        raise InputError(f"the budget of {proposer.limits} pays for no complete denoising step; give a larger one")
    return recipes
