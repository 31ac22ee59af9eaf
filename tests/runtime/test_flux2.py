"""FLUX.2: noise levels that are shifted by the number of steps, and pictures that a call may be given."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image

from autotune import Policy, applied, apply_policy
from autotune.core.errors import InputError
from autotune.pipelines.families import family_of
from autotune.policy import CacheRule, ResolutionStage
from tests.support.builders import FAMILIES

NAMES = ["flux2", "flux2-klein"]


def _call(name: str, **changes: Any) -> dict[str, Any]:
    """Arguments of a call that leaves its steps open."""
    arguments = FAMILIES[name].arguments(**changes)
    del arguments["num_inference_steps"]
    return arguments


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("default", [False, True], ids=["open", "default"])
def test_noise_levels_are_those_of_as_many_steps(name: str, default: bool) -> None:
    family = FAMILIES[name]
    pipe = family.make()
    expected = family.run(pipe, **family.arguments(steps=3))
    with applied(pipe, Policy(steps=3)):
        spelled = _call(name) | ({"num_inference_steps": 50} if default else {})
        assert torch.equal(family.run(pipe, **spelled), expected)


def test_the_number_of_steps_may_be_given_by_position() -> None:
    family = FAMILIES["flux2"]
    pipe = family.make()
    expected = family.run(pipe, **family.arguments(steps=3))
    arguments = _call("flux2")
    first = [None, *(arguments.pop(name) for name in ("prompt", "height", "width")), 50]
    with applied(pipe, Policy(steps=3)):
        assert torch.equal(pipe(*first, **arguments).images, expected)


def test_other_steps_are_refused() -> None:
    family = FAMILIES["flux2"]
    pipe = family.make()
    with (
        applied(pipe, Policy(steps=3)),
        pytest.raises(InputError, match="3 steps and the call asks for 7"),
    ):
        family.run(pipe, **family.arguments(steps=7))


@pytest.mark.parametrize("name", NAMES)
def test_given_pictures_are_followed(name: str) -> None:
    family, picture = FAMILIES[name], Image.new("RGB", (64, 64), (200, 30, 90))
    pipe = family.make()
    plain = family.run(pipe, **family.arguments(), image=picture)
    assert not torch.equal(plain, family.run(pipe, **family.arguments()))
    with applied(pipe, Policy(steps=4)):
        assert torch.equal(family.run(pipe, **family.arguments(), image=picture), plain)
    reusing = Policy(steps=4, cache=(CacheRule(units=("transformer_blocks.*",), compute_steps=(0, 2)),))
    with applied(pipe, reusing):
        assert not torch.equal(family.run(pipe, **family.arguments(), image=picture), plain)


@pytest.mark.parametrize("name", NAMES)
def test_given_pictures_have_no_low_resolution(name: str) -> None:
    family, picture = FAMILIES[name], Image.new("RGB", (64, 64))
    pipe = family.make()
    apply_policy(pipe, Policy(steps=4, resolution=(ResolutionStage(until_step=2, scale=0.5),)))
    calls = []
    pipe.transformer.x_embedder.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(InputError, match="the denoiser is given the tokens of given pictures"):
        family.run(pipe, **family.arguments(), image=picture)
    assert not calls
    family.run(pipe, **family.arguments())


def test_distilled_models_have_no_guidance() -> None:
    pipe = FAMILIES["flux2-klein"].make()
    assert family_of(pipe).call_signature(pipe).guidance_argument == "guidance_scale"
    pipe.register_to_config(is_distilled=True)
    assert family_of(pipe).call_signature(pipe).guidance_argument is None
    assert not family_of(pipe).guided
