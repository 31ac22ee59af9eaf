"""Steps that image-to-image leaves out, against what the pipelines' calls compute."""

from __future__ import annotations

from functools import cache
from typing import Any

import diffusers
import pytest

from autotune.cost import Pricer
from autotune.policy import CacheRule, Policy
from autotune.runtime import applied
from autotune.runtime.strength import fewest_steps, skipped_steps, strength_of
from tests.support.builders import FAMILIES

NAMES = [name for name, family in FAMILIES.items() if family.strength is not None]


@cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make()


def calls(name: str, policy: Policy, strength: float) -> int:
    """Of the denoiser in a call of the pipeline under a policy."""
    pipe, seen = pipeline(name), []
    handle = getattr(pipe, FAMILIES[name].denoiser).register_forward_hook(lambda *_: seen.append(1))
    arguments = FAMILIES[name].arguments(steps=policy.steps, strength=strength, guidance=False)
    try:
        with applied(pipe, policy):
            pipe(**arguments)
    finally:
        handle.remove()
    return len(seen)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("steps", "strength"), [(5, 0.5), (4, 0.75), (3, 1.0), (7, 0.3)])
def test_what_is_left_is_what_the_pipeline_computes(name: str, steps: int, strength: float) -> None:
    assert calls(name, Policy(steps=steps), strength) == steps - skipped_steps(pipeline(name), steps, strength)


@pytest.mark.parametrize("name", NAMES)
def test_the_price_is_of_what_is_left(name: str) -> None:
    pricer = Pricer(pipeline(name), full_steps=8, call={"strength": 0.5})
    whole = Pricer(pipeline(name), full_steps=8)
    assert pricer.full_flops() * 2 == whole.full_flops()
    assert pricer.price(Policy(steps=4)).relative == 0.5
    units = pricer.structure.units
    last = next(unit.name for unit in reversed(units) if unit.kind == "block")
    rule = CacheRule(units=(last,), compute_steps=(0, 2, 4, 6))
    policy = Policy(steps=8, cache=(rule,))
    assert pricer.price(policy).flops == whole.price(policy, skipped_calls=4).flops < whole.price(policy).flops


def test_pipelines_round_in_their_own_ways() -> None:
    """Of five steps at half strength Stable Diffusion executes two, Stable Diffusion 3 three."""
    classes = diffusers.StableDiffusionImg2ImgPipeline, diffusers.StableDiffusion3Img2ImgPipeline
    made = [object.__new__(each) for each in classes]
    assert [skipped_steps(pipe, 5, 0.5) for pipe in made] == [3, 2]
    assert [fewest_steps(pipe, 0.5) for pipe in made] == [2, 1]


def test_the_strength_is_what_a_call_names_or_the_pipeline_defaults_to() -> None:
    assert strength_of(pipeline("sd-img2img"), {}) == 0.8 and strength_of(pipeline("sd-img2img"), {"strength": 1}) == 1
    assert strength_of(pipeline("sd"), {}) is None and skipped_steps(pipeline("sd"), 5, None) == 0
