"""Calls that run a part of the trajectory: where they end, and where they begin.

Of :mod:`autotune.runtime.denoising` and :mod:`autotune.runtime.call`.
"""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import pytest
import torch
from diffusers import StableDiffusionControlNetImg2ImgPipeline
from torch import Tensor

from autotune.core.errors import InputError
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.runtime import applied
from tests.support.adapters import controlnet
from tests.support.builders import FAMILIES
from tests.support.by_hand import by_hand, precise
from tests.support.ecosystem import make

STEPS = 8
REUSE = CacheRule(units=("up_blocks.1",), compute_steps=(0, 2, 4, 6))


def low(until: int) -> Policy:
    return Policy(steps=STEPS, resolution=(ResolutionStage(scale=0.5, until_step=until),), cache=(REUSE,))


FULL = Policy(steps=STEPS, guidance=Guidance(stop_step=3), cache=(REUSE,))

# Whose calls take denoising_end, and those that go on from there.
ENDING = ["sdxl", "sdxl-controlnet", "sdxl-adapter", "sdxl-ip-adapter", "sdxl-pag"]
GOING_ON = ["sdxl-img2img", "sdxl-inpaint"]


def denoiser_calls(pipe: Any) -> list[int]:
    calls: list[int] = []
    pipe.unet.conv_in.register_forward_hook(lambda *_: calls.append(1))
    return calls


def call(name: str, pipe: Any, steps: int | None = None, **options: Any) -> Tensor:
    arguments = FAMILIES[name].arguments(steps=STEPS, **options)
    if steps is None:
        del arguments["num_inference_steps"]
    return FAMILIES[name].run(pipe, **arguments)


def test_these_are_all_that_do() -> None:
    stock = {name: getattr(diffusers, family.pipeline) for name, family in FAMILIES.items() if name != "generic"}
    ending = {name for name, each in stock.items() if "denoising_end" in inspect.signature(each.__call__).parameters}
    assert ending == {*ENDING, *GOING_ON}


@pytest.mark.parametrize(("name", "end"), [("sdxl", 0.3), ("sdxl", 0.8), *((name, 0.5) for name in ENDING)])
def test_a_base_model_hands_its_refiner_what_it_would_by_hand(name: str, end: float) -> None:
    pipe = precise(make(name))
    policy = Policy(steps=STEPS, cache=FULL.cache) if "guidance" in FAMILIES[name].refuses else FULL
    with by_hand(pipe, pipe.unet, policy, conditional_first=False, separate=False):
        expected = call(name, pipe, STEPS, denoising_end=end)
    calls = denoiser_calls(pipe)
    with applied(pipe, policy):
        torch.testing.assert_close(call(name, pipe, denoising_end=end), expected, atol=1e-5, rtol=1e-5)
    assert len(calls) == sum(int(t) >= round(1000 - end * 1000) for t in pipe.scheduler.timesteps)


def test_a_lower_resolution_that_ends_before_the_call_does_is_the_same_whatever_comes_later() -> None:
    """The latents after so many steps, and those a callback sees then in the whole call."""
    pipe = precise(make("sdxl"))
    seen: list[Tensor] = []

    def look(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tensors["latents"].clone())
        return {}

    with applied(pipe, low(3)):
        call("sdxl", pipe, callback_on_step_end=look)
        ended = call("sdxl", pipe, denoising_end=0.5)
    steps = sum(int(t) >= 500 for t in pipe.scheduler.timesteps)
    assert 3 <= steps < STEPS
    assert torch.equal(ended, seen[steps - 1])


@pytest.mark.parametrize("end", [0.2, 0.5])
def test_a_call_that_would_end_at_a_lower_resolution_is_refused(end: float) -> None:
    pipe = precise(make("sdxl"))
    calls = denoiser_calls(pipe)
    with applied(pipe, low(6)):
        with pytest.raises(InputError, match=rf"denoising_end={end} ends the call .* end it after step 6 of 8"):
            call("sdxl", pipe, denoising_end=end)
        assert not calls
        assert call("sdxl", pipe, denoising_end=0.9).isfinite().all()


def refiner(name: str = "sdxl-img2img") -> tuple[Any, Tensor]:
    """A pipeline that goes on, and latents that are denoised in part."""
    base = precise(make("sdxl"))
    latents = call("sdxl", base, STEPS, denoising_end=0.4)
    pipe = getattr(diffusers, FAMILIES[name].pipeline)(**base.components, add_watermarker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe, latents


def refine(pipe: Any, latents: Tensor, steps: int | None = None, start: float = 0.4, **options: Any) -> Tensor:
    family = next(FAMILIES[name] for name in GOING_ON if FAMILIES[name].pipeline == type(pipe).__name__)
    arguments = family.arguments(steps=STEPS) | {"image": latents, "denoising_start": start}
    if steps is None:
        del arguments["num_inference_steps"]
    return family.run(pipe, **arguments | options)


@pytest.mark.parametrize(
    ("name", "options"), [(GOING_ON[0], {"denoising_end": 0.8}), *((name, {}) for name in GOING_ON)]
)
def test_a_refiner_goes_on_from_there_as_by_hand(name: str, options: dict[str, Any]) -> None:
    pipe, latents = refiner(name)
    policy = Policy(steps=STEPS, cache=(CacheRule(units=("up_blocks.1",), compute_steps=tuple(range(0, STEPS, 2))),))
    with by_hand(pipe, pipe.unet, policy, conditional_first=False, separate=False) as hand:
        hand.first_step = hand.step = sum(int(t) >= 600 for t in _timesteps(pipe))
        expected = refine(pipe, latents, STEPS, **options)
    with applied(pipe, policy):
        torch.testing.assert_close(refine(pipe, latents, **options), expected, atol=1e-5, rtol=1e-5)


def _timesteps(pipe: Any) -> list[int]:
    pipe.scheduler.set_timesteps(STEPS)
    timesteps: list[int] = pipe.scheduler.timesteps.tolist()
    return timesteps


@pytest.mark.parametrize(("name", "start"), [(GOING_ON[0], 0), *((name, 0.4) for name in GOING_ON)])
def test_latents_denoised_in_part_are_not_taken_to_a_lower_resolution(name: str, start: float) -> None:
    pipe, latents = refiner(name)
    calls = denoiser_calls(pipe)
    with applied(pipe, low(6)):
        with pytest.raises(
            InputError, match="goes on from latents that are denoised in part, and the policy has a low"
        ):
            refine(pipe, latents, start=start)
    assert not calls
    with applied(pipe, low(2)):
        assert start == 0 or refine(pipe, latents).isfinite().all()


def test_given_latents_say_how_many_pictures_there_are() -> None:
    """SDXL's image-to-image prepares none then; guidance stops all the same."""
    pipe, latents = refiner()
    policy = Policy(steps=STEPS, guidance=Guidance(stop_step=5))
    with by_hand(pipe, pipe.unet, policy, conditional_first=False, separate=False) as hand:
        hand.first_step = hand.step = STEPS - FAMILIES["sdxl-img2img"].executed_steps(STEPS)
        expected = call("sdxl-img2img", pipe, STEPS, latents=latents)
    with applied(pipe, policy):
        torch.testing.assert_close(call("sdxl-img2img", pipe, latents=latents), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "total"),
    [
        ("sdxl", {}, STEPS),
        ("sdxl", {"denoising_end": 0.5}, 4),
        ("sd-img2img", {"strength": 0.5}, 4),
        ("sdxl-img2img", {"strength": 0.5}, 4),
        ("sdxl-img2img", {"strength": 0.5, "denoising_end": 0.9}, 3),
    ],
    ids=str,
)
def test_the_bar_shows_the_steps_that_are_made(name: str, options: dict[str, Any], total: int) -> None:
    pipe = make(name)
    calls = denoiser_calls(pipe)
    totals: list[int] = []
    progress_bar = pipe.progress_bar

    def watched(iterable: Any = None, total: int | None = None) -> Any:
        assert total is not None
        totals.append(total)
        return progress_bar(iterable=iterable, total=total)

    pipe.progress_bar = watched
    with applied(pipe, FULL):
        call(name, pipe, **options)
    assert totals == [len(calls)] == [total]


def test_a_controlnet_at_a_lower_resolution_is_refused() -> None:
    """It would see the stand-in of full size in place of the latents, also in a pipeline that nobody tested."""
    plain = make("sd")
    pipe = StableDiffusionControlNetImg2ImgPipeline(
        **plain.components, controlnet=controlnet(plain), requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    calls = denoiser_calls(pipe)
    height, width = FAMILIES["sd"].size
    picture = torch.zeros(1, 3, height, width)
    arguments = FAMILIES["sd"].arguments(steps=STEPS, image=picture, control_image=picture, strength=1.0)
    with (
        applied(pipe, low(4), strict=False),
        pytest.raises(
            InputError, match="given down_block_additional_residuals, .* policy begins at a lower resolution"
        ),
    ):
        pipe(**arguments)
    assert not calls
