"""Every family: forecasts by weights are what is done by hand, of outputs and of residuals.

What they cost and keep is tested with all techniques (:mod:`tests.conformance.test_contract`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from autotune.runtime import applied
from tests.conformance.test_contract import VARIANTS, run
from tests.support.builders import FAMILIES
from tests.support.by_hand import by_hand, precise
from tests.support.techniques import STEPS, WEIGHTED, WEIGHTED_RESIDUAL, structure_of, technique


@cache
def pipeline(name: str) -> Any:
    pipe = FAMILIES[name].make()
    # The autoencoder of a pipeline of one's own is given single precision whatever it has.
    return pipe if name == "generic" else precise(pipe)


@pytest.mark.parametrize("case", [WEIGHTED, WEIGHTED_RESIDUAL])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] if name in VARIANTS else []) for name in FAMILIES]
)
def test_weighted_forecasts_are_those_by_hand(name: str, case: str) -> None:
    family, pipe = FAMILIES[name], pipeline(name)
    policy = technique(case, family, structure_of(family, pipe))
    assert policy is not None
    with by_hand(
        pipe,
        getattr(pipe, family.denoiser),
        policy,
        conditional_first=family.conditional_first,
        separate=family.guidance == "separate",
    ) as hand:
        hand.pictures = 2
        hand.first_step = hand.step = STEPS - family.executed_steps(STEPS)
        expected = run(name, pipe, steps=STEPS, batch=2)
    assert not torch.allclose(expected, run(name, pipe, steps=STEPS, batch=2), atol=1e-3, rtol=1e-3)
    with applied(pipe, policy):
        torch.testing.assert_close(run(name, pipe, batch=2), expected, atol=1e-5, rtol=1e-5)
