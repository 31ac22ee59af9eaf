"""Which rows of the denoiser's arguments are the conditional branch's, at every call of it.

Of :mod:`autotune.runtime.branches` and :mod:`autotune.runtime.denoising`. What is right is done by hand in
:mod:`tests.support.by_hand`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import StableDiffusionControlNetPipeline
from diffusers.callbacks import SDCFGCutoffCallback, SDXLCFGCutoffCallback
from torch import Tensor

from autotune.core.errors import InputError
from autotune.policy import CacheRule, Guidance, Policy
from autotune.runtime import applied
from autotune.runtime.branches import half, twice
from tests.support.adapters import controlnet, image_embeds, load_ip_adapters
from tests.support.builders import FAMILIES, NEGATIVE, PROMPTS
from tests.support.by_hand import by_hand, precise
from tests.support.ecosystem import make
from tests.support.techniques import STEPS
from tests.support.tiny import tiny_sd

INTERVALS = {
    "stops": Guidance(stop_step=3),
    "in the middle": Guidance(start_step=1, stop_step=4),
    "every second step": Guidance(stop_step=5, compute_steps=(0, 2, 4)),
    "every third step": Guidance(start_step=1, stop_step=5, compute_steps=(1, 4)),
}
REUSE = {"sd": "up_blocks.1", "sdxl": "up_blocks.1", "z-image": "layers.1"}
each_interval = pytest.mark.parametrize("interval", INTERVALS)


def policy_of(name: str, interval: str | None, *, cached: bool = True) -> Policy:
    rule = CacheRule(units=(REUSE[name],), compute_steps=(0, 2))
    guidance = INTERVALS[interval] if interval else None
    return Policy(version=3, steps=STEPS, guidance=guidance, cache=(rule,) if cached else ())


def check(name: str, pipe: Any, policy: Policy, batch: int = 1, **options: Any) -> Tensor:
    """Under the policy and by hand the same; returns what that is."""
    family = FAMILIES[name]
    denoiser = getattr(pipe, family.denoiser)
    separate = family.guidance == "separate"

    def call() -> Tensor:
        return family.run(pipe, **family.arguments(batch=batch, steps=STEPS) | options)

    with by_hand(pipe, denoiser, policy, conditional_first=family.conditional_first, separate=separate) as hand:
        hand.pictures = batch
        expected = call()
    with applied(pipe, policy):
        for _ in range(2):
            torch.testing.assert_close(call(), expected, atol=1e-5, rtol=1e-5)
    assert expected.shape[0] == batch
    return expected


@each_interval
@pytest.mark.parametrize("adapters", [1, 2, 4])
@pytest.mark.parametrize("batch", [1, 2])
def test_ip_adapters_as_many_as_rows(interval: str, adapters: int, batch: int) -> None:
    pipe = precise(make("sd"))
    plain = check("sd", pipe, policy_of("sd", interval), batch)
    load_ip_adapters(pipe, adapters)
    embeds = image_embeds(adapters, guided=True)
    result = check("sd", pipe, policy_of("sd", interval), batch, ip_adapter_image_embeds=embeds)
    assert not torch.allclose(result, plain, atol=1e-3)


def test_several_embeddings_for_a_row_are_refused_where_guidance_stops() -> None:
    """The pipeline repeats for each picture what already was one for each."""
    pipe = make("sd")
    load_ip_adapters(pipe, 1)
    embeds = [torch.cat([image_embeds(1, guided=True)[0]] * 2)]
    with (
        applied(pipe, Policy(steps=STEPS, guidance=Guidance(start_step=1, stop_step=3))),
        pytest.raises(InputError, match="'image_embeds' in the denoiser's argument 'added_cond_kwargs' has 8 rows for"),
    ):
        FAMILIES["sd"].run(pipe, **FAMILIES["sd"].arguments(batch=2, steps=STEPS, ip_adapter_image_embeds=embeds))


@each_interval
def test_controlnets_residuals_as_many_as_rows(interval: str) -> None:
    """The U-Net has six skips, and the call six rows."""
    plain = precise(tiny_sd())
    pipe = StableDiffusionControlNetPipeline(
        **plain.components, controlnet=controlnet(plain).to(torch.float64), requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    prompts = ["a cat", "a dog", "a hat"]
    picture = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(8))
    policy = policy_of("sd", interval)
    residuals: list[Any] = []
    pipe.unet.register_forward_pre_hook(
        lambda module, args, kwargs: residuals.append(kwargs["down_block_additional_residuals"]), with_kwargs=True
    )

    def call() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        images = pipe(prompts, image=picture, num_inference_steps=STEPS, generator=generator, output_type="latent")
        return images.images

    with by_hand(pipe, pipe.unet, policy, conditional_first=False, separate=False) as hand:
        hand.pictures = 3
        expected = call()
    assert isinstance(residuals[0], list) and len(residuals[0]) == len(residuals[0][0]) == 6
    with applied(pipe, policy, strict=False):
        torch.testing.assert_close(call(), expected, atol=1e-5, rtol=1e-5)


def test_what_holds_rows_is_told_by_what_it_is() -> None:
    rows = torch.arange(4.0)[:, None]
    two_adapters = [torch.zeros(4, 3), torch.ones(4, 3), torch.ones(4, 1), torch.ones(1, 5)]
    halved = half("added_cond_kwargs", {"image_embeds": two_adapters, "n": None}, 4, first=False, listed=False)
    assert [len(entry) for entry in halved["image_embeds"]] == [2, 2, 2, 1]
    assert half("sample", rows, 4, first=False, listed=False).flatten().tolist() == [2, 3]
    assert half("sample", rows, 4, first=True, listed=False).flatten().tolist() == [0, 1]
    pictures = [torch.zeros(16, 1, 2, 2) + row for row in range(4)]
    assert [float(one.mean()) for one in half("x", pictures, 4, first=True, listed=True)] == [0, 1]
    assert half("scale", 0.5, 4, first=True, listed=False) == 0.5
    with pytest.raises(InputError, match="argument 'regions' is a list of 4 entries, which may be its rows or not"):
        half("regions", [torch.zeros(7, 2)] * 4, 4, first=True, listed=False)


def test_one_branch_stands_in_for_both_in_whatever_holds_rows() -> None:
    one = torch.arange(2.0)
    assert twice((one,), listed=False)[0].tolist() == [0, 1, 0, 1]
    assert [entry.tolist() for entry in twice([one, one], listed=False)] == [[0, 1, 0, 1]] * 2
    assert len(twice([one, one], listed=True)) == 4


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("cutoff", [0, 1, 2, 3])
@pytest.mark.parametrize(
    ("name", "callback", "interval"),
    [
        ("sd", SDCFGCutoffCallback, "stops"),
        ("sd", SDCFGCutoffCallback, "in the middle"),
        ("sd", SDCFGCutoffCallback, "every second step"),
        ("sd", SDCFGCutoffCallback, "every third step"),
        # The tiny SDXL makes a picture of its own of the last bits of an unguided first step, in any precision.
        ("sdxl", SDXLCFGCutoffCallback, "stops"),
    ],
)
def test_a_callback_that_cuts_guidance_off(name: str, callback: Any, interval: str, cutoff: int, cached: bool) -> None:
    # Euler's steps, SDXL's own, round to single precision.
    pipe = precise(FAMILIES[name].make(FAMILIES["sd"].make().scheduler))
    cut = callback(cutoff_step_ratio=None, cutoff_step_index=cutoff)
    check(name, pipe, policy_of(name, interval, cached=cached), callback_on_step_end=cut)


@pytest.mark.parametrize("interval", [None, *INTERVALS])
@pytest.mark.parametrize("truncation", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("batch", [1, 2])
def test_guidance_that_the_pipeline_truncates_itself(batch: int, truncation: float, interval: str | None) -> None:
    check("z-image", precise(make("z-image")), policy_of("z-image", interval), batch, cfg_truncation=truncation)


@pytest.mark.parametrize("interval", [None, *INTERVALS])
@pytest.mark.parametrize("at", [0, 1, 2])
def test_guidance_that_a_callback_turns_on(interval: str | None, at: int) -> None:
    """What was kept has no rows of the other branch, so that everything computes."""
    pipe = precise(make("sd"))
    with torch.no_grad():
        both = torch.cat(pipe.encode_prompt([PROMPTS[0]], "cpu", 1, True, [NEGATIVE])[::-1])

    def turn_on(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index != at:
            return {}
        pipe._guidance_scale = 4.0
        return {"prompt_embeds": both}

    options: dict[str, Any] = {"callback_on_step_end": turn_on, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    options["guidance_scale"] = 1.0
    check("sd", pipe, policy_of("sd", interval), **options)


def test_rows_that_no_policy_knows_are_refused_before_the_denoiser_is_called() -> None:
    pipe = make("sd")
    calls: list[int] = []
    handle = pipe.unet.conv_in.register_forward_hook(lambda *_: calls.append(1))
    forward = pipe.scheduler.scale_model_input

    def three_branches(sample: Tensor, *args: Any) -> Tensor:
        return forward(torch.cat([sample, sample[:1]]), *args)

    with applied(pipe, policy_of("sd", "stops")):
        pipe.scheduler.scale_model_input = three_branches
        with pytest.raises(InputError, match="3 rows for 1 pictures, of which no policy knows the conditional ones"):
            FAMILIES["sd"].run(pipe, **FAMILIES["sd"].arguments(steps=STEPS))
    handle.remove()
    assert not calls
