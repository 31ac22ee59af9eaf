from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ImagePipelineOutput
from diffusers.pipelines.kandinsky5.pipeline_output import KandinskyImagePipelineOutput
from PIL import Image

from autotune.core.errors import InputError
from autotune.evaluation.accepted_inputs import accepted
from autotune.evaluation.generation import PictureMaker, picture_maker
from autotune.evaluation.inputs import Inputs, Row, read_rows, rows_of_prompts, seed_rows
from autotune.evaluation.pictures import as_tensor, generate
from autotune.pipelines.bars import without_bars
from autotune.policy import Guidance, Policy
from autotune.runtime import applied
from autotune.runtime.apply import session_of
from autotune.runtime.models import native_size
from autotune.runtime.prefix.checkpoints import PrefixCache
from tests.support.builders import FAMILIES, NEGATIVE, PROMPTS


def test_what_is_not_given_is_the_models_own(pipe: Any) -> None:
    own = picture_maker(pipe)
    assert (own.height, own.width) == native_size(pipe)
    assert own.guidance_scale == 7.5 and own.guided
    assert picture_maker(pipe, height=16, width=64, guidance_scale=1, batch_size=3) == PictureMaker(pipe, 16, 64, 1, 3)
    assert not picture_maker(pipe, guidance_scale=1).guided


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"height": 0}, "height is 0; give a multiple of 8"),
        ({"width": 31}, "width is 31"),
        ({"batch_size": 0}, "batch_size is 0; give a number from 1"),
    ],
)
def test_what_cannot_be_made_is_refused(pipe: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        picture_maker(pipe, **options)


def test_videos_are_refused() -> None:
    with pytest.raises(InputError, match="WanPipeline makes videos"):
        picture_maker(FAMILIES["wan"].make())


def test_a_pipeline_under_a_policy_is_refused(pipe: Any) -> None:
    with applied(pipe, Policy(steps=2)), pytest.raises(InputError, match="remove_policy"):
        picture_maker(pipe)


def test_pictures_come_in_batches_under_the_policy(pipe: Any) -> None:
    maker = picture_maker(pipe, guidance_scale=3, batch_size=2)
    prompts, seeds = ["noto apple", "noto dog", "noto apple"], [3, 4, 5]
    done: list[int] = []
    batches = list(maker.pictures(Policy(steps=2), rows_of_prompts(prompts), seeds, done.append))
    assert [len(batch) for batch in batches] == [2, 1] and done == [2, 3]
    assert session_of(pipe) is None
    expected = generate(pipe, prompts, seeds, guidance_scale=3, steps=2, batch_size=2)
    assert torch.equal(torch.cat(batches), expected)


def test_a_policy_that_does_not_run_is_found_before_the_first_picture(pipe: Any) -> None:
    maker = picture_maker(pipe)
    maker.check(Policy(steps=2))
    with pytest.raises(InputError):
        maker.check(Policy(steps=2, timesteps="karras"))
    assert session_of(pipe) is None


def test_bars_come_back(pipe: Any) -> None:
    before = dict(pipe._progress_bar_config)
    with pytest.raises(KeyError), without_bars(pipe):
        assert pipe._progress_bar_config["disable"]
        raise KeyError
    assert pipe._progress_bar_config == before


def test_prefixes_change_no_picture_and_spare_steps(pipe: Any) -> None:
    prefixes = PrefixCache(2**28)
    plain, shared = picture_maker(pipe, batch_size=2), picture_maker(pipe, batch_size=2, prefixes=prefixes)
    prompts, seeds = ["noto apple", "noto dog", "noto apple"], [3, 4, 5]
    for policy in (Policy(steps=4), Policy(steps=4, guidance=Guidance(stop_step=2))):
        expected = torch.cat(list(plain.pictures(policy, rows_of_prompts(prompts), seeds)))
        assert torch.equal(torch.cat(list(shared.pictures(policy, rows_of_prompts(prompts), seeds))), expected)
    assert [(use.pictures, use.skipped) for use in prefixes.take_uses()] == [(2, 0), (1, 0), (2, 2), (1, 2)]
    assert session_of(pipe) is None


# Inputs that are not prompts


def picture(side: int = 40, colour: tuple[int, int, int] = (200, 30, 90)) -> Image.Image:
    image = Image.new("RGB", (side, side), colour)
    image.paste((0, 0, 0), (0, 0, side // 2, side))
    return image


def made(name: str, rows: Sequence[Mapping[str, Any]] | None, **options: Any) -> tuple[Any, torch.Tensor, Inputs]:
    """The tiny pipeline, pictures of two steps with seeds 3 and 4, and what it was asked for."""
    pipe = FAMILIES[name].make()
    inputs = accepted(pipe, None if rows is None else read_rows(rows))
    maker = picture_maker(pipe, inputs=inputs, **options)
    asked = inputs.rows[:2] or seed_rows(2)
    return pipe, torch.cat(list(maker.pictures(Policy(steps=2), asked, [3, 4]))), inputs


def direct(pipe: Any, **arguments: Any) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    images = as_tensor(pipe, pipe(**arguments, num_inference_steps=2, generator=generators))
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


PROMPTED = {"prompt": ["red cat", "green dog"], "output_type": "pt"}


def resized(mode: str = "RGB", side: int = 32) -> list[Image.Image]:
    return [picture(side + 8).convert(mode).resize((32, 32), Image.Resampling.LANCZOS) for _ in range(2)]


def test_pictures_are_made_from_given_ones_of_the_tuned_size() -> None:
    rows = [{"prompt": prompt, "image": picture(), "strength": 1.0} for prompt in PROMPTED["prompt"]]
    pipe, found, _ = made("sd-img2img", rows)
    assert torch.equal(found, direct(pipe, **PROMPTED, image=resized(), strength=1.0, guidance_scale=7.5))
    assert found.shape[-2:] == (32, 32)


def test_masks_are_gray() -> None:
    rows = [{"prompt": prompt, "image": picture(), "mask_image": picture()} for prompt in PROMPTED["prompt"]]
    pipe, found, _ = made("sd-inpaint", rows)
    given = {"image": resized(), "mask_image": resized("L"), "height": 32, "width": 32}
    assert torch.equal(found, direct(pipe, **PROMPTED, **given, guidance_scale=7.5))


def test_every_row_has_its_own_negative_prompt() -> None:
    negative = ["blurry", "dark"]
    rows = [{"prompt": p, "negative_prompt": n} for p, n in zip(PROMPTED["prompt"], negative, strict=True)]
    pipe, found, _ = made("sd", rows)
    size = {"height": 32, "width": 32}
    assert torch.equal(found, direct(pipe, **PROMPTED, **size, negative_prompt=negative, guidance_scale=7.5))


def test_classes_are_asked_for_by_number() -> None:
    pipe, found, _ = made("dit", [{"class_label": 7}, {"class_label": 9}])
    assert torch.equal(found, direct(pipe, class_labels=[7, 9], output_type="pt", guidance_scale=4.0))


def test_seeds_alone_make_pictures_and_calls_get_what_is_given_besides() -> None:
    pipe, found, inputs = made("ddim", [{"eta": 0.5}])
    assert inputs.call == {"eta": 0.5}
    assert torch.equal(found, direct(pipe, batch_size=2, output_type="pt", eta=0.5))
    assert not torch.equal(found, direct(pipe, batch_size=2, output_type="pt"))


def test_guidance_is_named_as_the_pipeline_does_and_needs_negative_prompts_where_it_does() -> None:
    prompts = [{"prompt": prompt} for prompt in PROMPTS]
    pipe = FAMILIES["flux"].make()
    plain = picture_maker(pipe, height=32, width=32, inputs=accepted(pipe, read_rows(prompts)))
    assert not plain.guided and plain.guidance_scale == 1
    asked = read_rows([{**row, "negative_prompt": NEGATIVE, "true_cfg_scale": 4} for row in prompts])
    guided = picture_maker(pipe, height=32, width=32, inputs=accepted(pipe, asked))
    assert guided.guided and guided.guidance_scale == 4 and guided.call == {}
    with pytest.raises(InputError, match="FluxPipeline has no guidance without negative prompts"):
        picture_maker(pipe, height=32, width=32, guidance_scale=4, inputs=accepted(pipe, read_rows(prompts)))


@pytest.mark.parametrize(
    ("name", "call", "options", "words"),
    [
        (
            "sd",
            {"guidance_scale": 3},
            {"guidance_scale": 5},
            "guidance_scale is 5 and .* is 3 in the inputs",
        ),
        ("ddpm", {}, {"guidance_scale": 5}, "DDPMPipeline has no guidance scale; leave guidance_scale out"),
        ("ddpm", {}, {"height": 32, "width": 32}, "DDPMPipeline makes pictures of 16 x 16 pixels only"),
    ],
)
def test_what_contradicts_the_inputs_or_the_pipeline_is_refused(
    name: str, call: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        picture_maker(FAMILIES[name].make(), inputs=Inputs((), call), **options)


def test_a_strength_that_leaves_no_step_is_refused() -> None:
    pipe = FAMILIES["sd-img2img"].make()
    maker = picture_maker(pipe, inputs=Inputs((), {"strength": 0.3}))
    assert maker.fewest_steps == 4
    maker.check(Policy(steps=4))
    with pytest.raises(InputError, match="strength of 0.3 leaves none of 3 steps; give a greater one, or 4 steps"):
        maker.check(Policy(steps=3))


def test_what_a_pipeline_refuses_is_found_before_anything_is_written() -> None:
    pipe = FAMILIES["sd"].make()
    maker = picture_maker(pipe, inputs=Inputs((), {"clip_skip": 99}))
    with pytest.raises(InputError, match="cannot make a picture of the input 'a cat'"):
        maker.try_out(Policy(steps=4), Row({"prompt": "a cat"}))
    assert session_of(pipe) is None


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), OSError(5, "Input/output error")])
def test_the_machines_own_faults_are_not_blamed_on_the_inputs(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    pipe = FAMILIES["sd"].make()
    monkeypatch.setattr(pipe.vae, "decode", fail)
    with pytest.raises(type(error)):
        picture_maker(pipe).try_out(Policy(steps=4), Row({"prompt": "a cat"}))
    assert session_of(pipe) is None


def test_forms_of_pictures() -> None:
    gray = np.full((2, 4, 6, 1), 0.5, np.float32)
    assert as_tensor(None, ImagePipelineOutput(images=gray)).shape == (2, 3, 4, 6)
    images = [Image.new("RGB", (6, 4), (255, 0, 51))]
    assert as_tensor(None, ImagePipelineOutput(images=images))[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    assert as_tensor(None, KandinskyImagePipelineOutput(image=gray)).shape == (2, 3, 4, 6)
