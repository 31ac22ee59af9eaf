"""Sharing prefixes changes no bit, on any family, under any technique and with any scheduler."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from autotune.policy import CacheRule, Guidance, Policy
from autotune.runtime import applied
from autotune.runtime.apply import applied_sharing
from autotune.runtime.prefix.checkpoints import PrefixCache
from tests.conformance import test_schedulers_cross as cross
from tests.conformance.test_contract import FULL, TELLING, VARIANTS
from tests.support.builders import FAMILIES, TinyFamily
from tests.support.techniques import RATE, STEPS, names, structure_of, technique

ROOMY = 2**30
# By default, of every family.
ALSO = {"nothing", "second-order forecast", "half size, noise_matched", "guidance stops", RATE}


def arguments(family: TinyFamily, **options: Any) -> dict[str, Any]:
    """Of a call of two pictures with a generator each; the policy sets the steps."""
    call = family.arguments(batch=2, **options)
    del call["num_inference_steps"]
    call["generator"] = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    return call


def plainly(family: TinyFamily, pipe: Any, policy: Policy, **options: Any) -> Tensor:
    with applied(pipe, policy):
        return family.run(pipe, **arguments(family, **options))


def sharing(family: TinyFamily, pipe: Any, policy: Policy, cache: PrefixCache, **options: Any) -> Tensor:
    with applied_sharing(pipe, policy, cache) as call:
        return family.run(pipe, by=call, **arguments(family, **options))


def later_changes(family: TinyFamily, policy: Policy) -> list[Policy]:
    """The policy with something else done in the last steps."""
    changed = [
        policy.model_copy(update={"cache": tuple(_without_last(rule) for rule in policy.cache)}),
    ]
    if family.guided and policy.guidance is None and "guidance" not in family.refuses:
        changed.append(policy.model_copy(update={"guidance": Guidance(stop_step=STEPS - 1)}))
    if policy.guidance is not None and policy.guidance.compute_steps is not None:
        # One more, where the other goes on with a difference from before.
        more = (*policy.guidance.compute_steps[:-1], STEPS - 2, STEPS - 1)
        guidance = policy.guidance.model_copy(update={"compute_steps": more})
        changed.append(policy.model_copy(update={"guidance": guidance}))
    return [other for other in changed if other.key != policy.key]


def _without_last(rule: CacheRule) -> CacheRule:
    steps = rule.compute_steps
    last = steps[:-1] if steps[-1] == STEPS - 1 else (*steps, STEPS - 1)
    return rule.model_copy(update={"compute_steps": last})


EXHAUSTIVE = pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("name", "every"),
    [pytest.param(name, False, id=name, marks=[EXHAUSTIVE] if name in VARIANTS else []) for name in FAMILIES]
    + [pytest.param(name, True, id=f"{name}-every", marks=EXHAUSTIVE) for name in FULL],
)
def test_a_family_makes_the_same_pictures_with_it(name: str, every: bool) -> None:
    family = FAMILIES[name]
    pipe, cache = family.make(), PrefixCache(ROOMY)
    structure = structure_of(family, pipe)
    cases = [case for case in names(family) if every or case in TELLING | ALSO]
    found = [technique(case, family, structure) for case in cases]
    for policy in [other for base in found if base for other in (base, *later_changes(family, base))]:
        expected = plainly(family, pipe, policy)
        assert torch.equal(sharing(family, pipe, policy, cache), expected), policy.id
    skipped = sum(use.skipped for use in cache.take_uses())
    # What begins with a picture or follows one is made plainly: pictures are no part of what tells calls apart.
    assert (skipped == 0) == (family.strength is not None or bool(family.pictures))


# Of schedulers under these pipelines the one that draws from the global generator: what it does is nobody's to repeat.
UNREPEATABLE = {"flow Euler, stochastic"}


# By default each with one of the hand-offs, in turn.
HANDOFFS = ("renoise", "noise_matched")
WITH_HANDOFF = [
    pytest.param(case, handoff, id=f"{case}-{handoff}", marks=[EXHAUSTIVE] if (number + other) % 2 else [])
    for number, case in enumerate(cross.CASES)
    for other, handoff in enumerate(HANDOFFS)
]


@pytest.mark.parametrize(("case", "handoff"), WITH_HANDOFF)
def test_a_scheduler_makes_the_same_pictures_with_it(case: str, handoff: str) -> None:
    name, cls, config = cross.CASES[case]
    family = FAMILIES[name]
    with cross.under(name, cross.scheduler_of(name, cls, config)) as pipe:
        cache = PrefixCache(ROOMY)
        policy = cross.policy_of(name, handoff)
        rule = CacheRule(units=(cross.UNITS[name],), compute_steps=(0, 1, 3))
        unscaled = policy.model_copy(update={"resolution": ()})
        rate = Guidance(start_step=1, stop_step=5, compute_steps=(1, 3))
        rated = policy.model_copy(update={"guidance": rate})
        for changed in (policy, policy.model_copy(update={"cache": (rule,)}), unscaled, rated, rated):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                expected = plainly(family, pipe, changed)
                torch.manual_seed(0)
                assert torch.equal(sharing(family, pipe, changed, cache), expected)
        # Of five steps at least the first three are shared by the two that differ in the last.
        last = [use.skipped for use in cache.take_uses()][1]
        assert last == 0 if case in UNREPEATABLE else last >= 3
