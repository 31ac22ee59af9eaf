"""Steps that image-to-image leaves out, against what the pipelines' calls compute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import diffusers
import pytest

from autotune.core.errors import InputError
from autotune.cost import Pricer
from autotune.policy import CacheRule, Policy
from autotune.runtime import applied
from autotune.runtime.strength import fewest_steps, skipped_steps, strength_of
from tests.support.builders import FAMILIES

NAMES = [name for name, family in FAMILIES.items() if family.strength is not None]


@cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make()


@contextmanager
def watched(name: str) -> Iterator[tuple[list[int], list[int]]]:
    """Calls of the family's denoiser, and the totals that its bars are told."""
    pipe, calls, totals = pipeline(name), [], []
    progress_bar = pipe.progress_bar

    def told(iterable: Any = None, total: int | None = None) -> Any:
        totals.append(-1 if total is None else total)
        return progress_bar(iterable=iterable, total=total)

    handle = getattr(pipe, FAMILIES[name].denoiser).register_forward_pre_hook(lambda *_: calls.append(1))
    pipe.progress_bar = told
    try:
        yield calls, totals
    finally:
        handle.remove()
        del pipe.progress_bar


def call(name: str, policy: Policy, strength: float) -> None:
    with applied(pipeline(name), policy):
        pipeline(name)(**FAMILIES[name].arguments(steps=policy.steps, strength=strength, guidance=False))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("steps", "strength"), [(5, 0.5), (4, 0.75), (3, 1.0), (7, 0.2)])
def test_what_is_left_is_what_the_pipeline_computes_and_its_bar_shows(name: str, steps: int, strength: float) -> None:
    with watched(name) as (calls, totals):
        call(name, Policy(steps=steps), strength)
    assert totals == [len(calls)] == [steps - skipped_steps(pipeline(name), steps, strength)]


@pytest.mark.parametrize("name", NAMES)
def test_a_strength_that_leaves_no_step_is_refused(name: str) -> None:
    """Flows always leave one, but at none at all."""
    strength = 0.1 if FAMILIES[name].scheduler == "diffusion" else 0.0
    with (
        watched(name) as (calls, _),
        pytest.raises(InputError, match="leaves out all of the policy's 3 steps: raise strength, or lower"),
    ):
        call(name, Policy(steps=3), strength)
    assert not calls


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
