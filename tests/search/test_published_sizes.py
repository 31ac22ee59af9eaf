"""A search of the size of SDXL and FLUX: what it would try, priced without weights, and candidates in miniature."""

from __future__ import annotations

import random
from itertools import count, islice
from typing import Any

import pytest
import torch

import autotune
from autotune.cost import Pricer, parse_budget
from autotune.search.proposer import Proposal, Proposer
from autotune.search.recipes import recipes_at_budget
from search_spaces import SearchSpace, space_for
from studies.full_size import FLUX, SDXL, FullSize
from studies.published import weightless
from tests.search_spaces.test_levers import LEFT_ALONE, levers_pulled
from tests.support.builders import FAMILIES

DRAWS, CANDIDATES = 1000, 20


def values_of(space: SearchSpace, seed: int) -> dict[str, int]:
    draw = random.Random(seed)
    return space.drawn(lambda name, low, high: draw.randint(low, high))


def proposed(proposer: Proposer) -> list[Proposal]:
    """The first candidates of random draws."""
    drawn = (proposer.propose(values_of(proposer.space, seed)) for seed in count())
    return list(islice((each for each in drawn if each is not None), CANDIDATES))


@pytest.mark.parametrize(("model", "steps"), [(SDXL, 50), (FLUX, 28)], ids=["SDXL", "FLUX"])
def test_what_a_search_of_full_size_tries(model: FullSize, steps: int) -> None:
    pipe: Any = weightless(model)
    pricer = Pricer(pipe, full_steps=steps, guided=model.guided, text_tokens=model.text_tokens)
    space = space_for(pipe, height=model.pixels, width=model.pixels, steps=steps, guided=model.guided)
    policies = [space.sample(seed) for seed in range(DRAWS)]
    for lever, alone in LEFT_ALONE.items():
        share = sum(map(alone, policies)) / DRAWS
        # FLUX's scale is an input of its denoiser: there is no second branch to leave out.
        assert 0.35 <= share <= 0.65 if model.guided or lever != "guidance" else share == 1, lever
    assert sum(levers_pulled(policy) <= 2 for policy in policies) >= 0.4 * DRAWS

    for budget, most in (("25%", 0.25), ("40%", 0.4), ("60%", 0.6)):
        proposer = Proposer(space, pricer.price, parse_budget(budget).limits(pricer.full_cost()), steps * 3 // 2)
        assert len({each.proposal.policy.key for each in recipes_at_budget(proposer)}) >= 8
        for each in proposed(proposer):
            assert 0.85 * most <= each.cost.relative <= most, each.policy.id


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_twenty_candidates_run(name: str) -> None:
    family = FAMILIES[name]
    pipe, steps = family.make(), 10
    height, width = family.size
    pricer = Pricer(pipe, height, width, full_steps=steps, guided=family.guided)
    space = space_for(pipe, height=height, width=width, steps=steps, guided=family.guided)
    proposer = Proposer(space, pricer.price, parse_budget("40%").limits(pricer.full_cost()), steps * 3 // 2)
    for each in proposed(proposer):
        with autotune.applied(pipe, each.policy):
            latents = family.run(pipe, **family.arguments(steps=each.policy.steps, batch=1))
        assert torch.isfinite(latents).all(), each.policy.id
