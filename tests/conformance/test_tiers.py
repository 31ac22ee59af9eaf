"""Every family under several policies at once: each tier's pictures are, to the bit, those of its policy alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from autotune.policy import Policy
from autotune.runtime import applied, apply_policies, remove_policy, tier
from tests.conformance.test_contract import VARIANTS, pipeline, run
from tests.support.builders import FAMILIES
from tests.support.techniques import RATE_AND_ALL, STEPS, names, structure_of, technique

# Other hooks each: on the last unit, on layers, and on what the first blocks give.
CASES = ("everything", "reuse layers", "residual", RATE_AND_ALL)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] if name in VARIANTS else []) for name in FAMILIES]
)
def test_a_tiers_pictures_are_those_of_its_policy_alone(name: str) -> None:
    pipe = pipeline(name)
    tiers = policies(name, pipe)
    alone: dict[str, Any] = {"full": run(name, pipe, steps=STEPS)}
    for each, policy in tiers.items():
        with applied(pipe, policy):
            alone[each] = run(name, pipe)
    apply_policies(pipe, tiers)
    try:
        for each in [*tiers, "full", *reversed(tiers)]:
            with tier(pipe, each):
                found = run(name, pipe, **({"steps": STEPS} if each == "full" else {}))
            assert torch.equal(found, alone[each]), each
    finally:
        remove_policy(pipe)
    assert torch.equal(run(name, pipe, steps=STEPS), alone["full"])


def policies(name: str, pipe: Any) -> dict[str, Policy]:
    family = FAMILIES[name]
    found = {case: technique(case, family, structure_of(family, pipe)) for case in CASES if case in names(family)}
    # A tier's name has no spaces, and at most 32 letters.
    return {case.replace(" ", "-").replace(",", "")[:32]: each for case, each in found.items() if each is not None}
