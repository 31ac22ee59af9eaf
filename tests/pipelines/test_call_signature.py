"""What families say of a pipeline's call, against real calls of it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from autotune.pipelines.families import CallSignature, family_of
from tests.support.builders import FAMILIES, LONG_NEGATIVE, NEGATIVE, returned

STEPS = 2


@cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make()


def signature(name: str) -> CallSignature:
    return family_of(pipeline(name)).call_signature(pipeline(name))


def rows(name: str, arguments: Mapping[str, Any]) -> int:
    """Rows that the denoiser computes in the first step of a call for one picture."""
    pipe, counted = pipeline(name), []
    denoiser = getattr(pipe, FAMILIES[name].denoiser)

    def count(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        counted.append(len(args[0] if args else kwargs[next(iter(kwargs))]))

    handle = denoiser.register_forward_hook(count, with_kwargs=True)
    steps = FAMILIES[name].executed_steps(STEPS)
    try:
        FAMILIES[name].run(pipe, **arguments)
    finally:
        handle.remove()
    return sum(counted) // steps


@pytest.mark.parametrize("name", FAMILIES)
def test_guidance_is_computed_where_it_is_said_to_be(name: str) -> None:
    tiny, said = FAMILIES[name], signature(name)
    family = family_of(pipeline(name))
    assert said.guided({}) == family.guided
    negatives: tuple[str | None, ...] = (tiny.negative, None) if "negative_prompt" in said.takes else (None,)
    for negative in negatives:
        arguments = tiny.arguments(steps=STEPS)
        arguments.pop("negative_prompt", None)
        if negative is not None:
            arguments["negative_prompt"] = [negative]
        for scale in (4.0, said.guided_above, said.guided_above + 0.01, None):
            if said.guidance_argument is not None:
                arguments.pop(said.guidance_argument, None)
                if scale is not None:
                    arguments[said.guidance_argument] = scale
            called = family.for_call(said.guided(arguments), arguments)
            branches = called.branch_count(said.guided(arguments), arguments)
            assert rows(name, arguments) == branches * called.rows, (negative, scale)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_call_takes_what_is_said(name: str) -> None:
    tiny, said = FAMILIES[name], signature(name)
    arguments = tiny.told(pipeline(name), tiny.arguments())
    assert set(arguments) <= said.takes
    assert said.rows_argument in arguments
    assert said.takes_size == ("height" in arguments)
    assert set(said.pictures) == {"image", "mask_image", *tiny.pictures} & set(arguments)
    assert said.bins_sizes == ("use_resolution_binning" in arguments)
    if said.embedded_guidance is not None:
        assert said.embedded_guidance in said.takes - {said.guidance_argument}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_negative_prompt_is_given_in_the_form_of_the_prompt(name: str) -> None:
    tiny, said = FAMILIES[name], signature(name)
    if "negative_prompt" not in said.takes:
        pytest.skip("takes none")
    negative = LONG_NEGATIVE if name == "lumina2" else NEGATIVE
    result = tiny.run(pipeline(name), **tiny.arguments(batch=2, steps=STEPS, negative_prompt=[negative] * 2))
    assert len(result) == 2


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("wan", "generic")])
def test_output_types_return_what_they_say(name: str) -> None:
    tiny, said = FAMILIES[name], signature(name)
    height, width = tiny.size
    pipe, calls = pipeline(name), {kind: tiny.arguments(steps=STEPS, output_type=kind) for kind in said.output_types}
    made = {kind: returned(pipe(**tiny.told(pipe, arguments))) for kind, arguments in calls.items()}
    assert isinstance(made["pil"][0], Image.Image)
    assert made["pil"][0].size == (width, height)
    assert isinstance(made["np"], np.ndarray)
    assert made["np"].shape == (1, height, width, 3)
    assert ("pt" in made) == (name != "sd-adapter")
    if "pt" in made:
        assert isinstance(made["pt"], torch.Tensor)
        assert made["pt"].shape == (1, 3, height, width)
        assert 0 <= made["pt"].min()
        assert made["pt"].max() <= 1
        assert np.allclose(made["pt"].permute(0, 2, 3, 1).numpy(), made["np"])
    assert ("latent" in made) == (name not in ("ddpm", "ddim", "dit"))
    if "latent" in made:
        assert made["latent"].shape != (1, 3, height, width)


@pytest.mark.parametrize("name", FAMILIES)
def test_sides_are_multiples_of_what_is_said(name: str) -> None:
    tiny, said = FAMILIES[name], signature(name)
    height, width = tiny.size
    assert height % said.size_multiple == width % said.size_multiple == 0
    # Nobody knows the patches of a model that nobody listed.
    if not said.takes_size or tiny.other_size is None or name == "generic":
        return
    made = tiny.run(pipeline(name), **tiny.arguments(steps=STEPS))
    other = tiny.run(pipeline(name), **tiny.arguments(steps=STEPS, height=height, width=width + said.size_multiple))
    assert other.numel() > made.numel()


def test_a_unet_that_embeds_the_guidance_scale_has_one_branch_in_any_pipeline() -> None:
    pipe = FAMILIES["sd"].make()
    pipe.unet.register_to_config(time_cond_proj_dim=16)
    family = family_of(pipe)
    assert not family.guided
    assert not family.call_signature(pipe).guided({"guidance_scale": 7.5})
    assert family.call_signature(pipe).embedded_guidance == "guidance_scale"


def test_classes_are_those_below_the_null_class() -> None:
    said = signature("dit")
    assert said.classes == 1000
    assert signature("sd").classes is None
    labels = [0, 999]
    made = pipeline("dit")(class_labels=labels, num_inference_steps=1, output_type="pt").images
    assert torch.isfinite(made).all()
