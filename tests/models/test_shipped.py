"""The shipped models: stock pipelines that draw what they are told."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch

from autotune.cli.models import ModelSource
from autotune.core.errors import InputError
from autotune.evaluation.pictures import generate
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.quality import Scorer
from autotune.quality.alignment import prompt_alignment
from autotune.runtime import applied

PIPELINES = {"emoji-unet": "StableDiffusionPipeline", "emoji-dit": "PixArtAlphaPipeline"}


@pytest.fixture(scope="module", params=DEMO_NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def pipe(name: str) -> Any:
    pipe = demo_pipeline(name)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pictures(name: str, pipe: Any, prompts: list[str]) -> torch.Tensor:
    return generate(pipe, prompts, range(len(prompts)), guidance_scale=demo_assets(name).guidance_scale)


@pytest.mark.parametrize("by", ["name", "folder"])
def test_commands_load_it_as_deployment_does_to_the_last_bit(name: str, pipe: Any, by: str) -> None:
    loaded = ModelSource.find(name if by == "name" else str(demo_assets(name).folder)).load("cpu")

    def latents(pipe: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return pipe(
            "fluent red apple",
            num_inference_steps=2,
            generator=generator,
            output_type="latent",
            **demo_assets(name).call,
        ).images

    assert torch.equal(latents(loaded), latents(pipe))


def test_it_is_a_stock_pipeline(name: str, pipe: Any) -> None:
    assert type(pipe) is getattr(diffusers, PIPELINES[name])


def test_pictures_resemble_their_captions_more_than_others(name: str, pipe: Any) -> None:
    assets = demo_assets(name)
    prompts = assets.held_out_prompts[::5][:16]
    with applied(pipe, Policy(steps=assets.full_steps)):
        drawn = pictures(name, pipe, prompts)
    scorer = Scorer(str(assets.scorer_dir))
    image, text = scorer.image_features(drawn), scorer.text_features(prompts)
    assert prompt_alignment(image, text).mean() > prompt_alignment(image, text.roll(1, 0)).mean() + 0.2


def test_it_runs_under_every_kind_of_technique(name: str, pipe: Any) -> None:
    units = {"emoji-unet": "up_blocks.1", "emoji-dit": "transformer_blocks.1-6"}
    policy = Policy(
        steps=8,
        resolution=(ResolutionStage(scale=0.5, until_step=3, handoff="noise_matched"),),
        guidance=Guidance(stop_step=6),
        cache=(CacheRule(units=(units[name],), compute_steps=(0, 3, 4, 6)),),
    )
    with applied(pipe, policy):
        drawn = pictures(name, pipe, ["fluent red apple", "noto cat face"])
    assert drawn.shape == (2, 3, 64, 64)
    assert drawn.float().std() > 20


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InputError, match="emoji-unet"):
        demo_pipeline("emoji-unett")
