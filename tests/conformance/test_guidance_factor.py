"""A factor of guidance, over all families: the stock pipeline with another guidance scale makes the same pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autotune.policy import Guidance, Policy
from autotune.runtime import applied
from tests.support.builders import FAMILIES
from tests.support.by_hand import precise
from tests.support.techniques import STEPS

# A guider's scale is no argument of the call, and modules of one's own have weights of one precision alone.
GUIDED = [
    name
    for name, family in FAMILIES.items()
    if family.guided and not family.guider and "guidance" not in family.refuses and name != "generic"
]
FACTOR = 1.5


def test_there_are_many() -> None:
    assert len(GUIDED) > 40


@pytest.mark.parametrize("name", GUIDED)
def test_a_factor_is_another_scale(name: str) -> None:
    family = FAMILIES[name]
    argument, scale, without = family.scale
    pipe = precise(family.make())

    def pictures(scale: float) -> Tensor:
        # Anew, for they hold a generator.
        return family.run(pipe, **family.arguments(steps=STEPS) | {argument: scale})

    expected = pictures(without + FACTOR * (scale - without))
    policy = Policy(version=4, steps=STEPS, guidance=Guidance(stop_step=STEPS, factor=FACTOR))
    with applied(pipe, policy):
        found = pictures(scale)
    # Some schedulers compute in single precision all the same.
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
