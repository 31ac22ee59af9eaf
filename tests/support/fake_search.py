"""A search whose quality is a formula: pictures carry their prompt's features, faded by what the policy saves."""

from __future__ import annotations

import functools
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from autotune.evaluation.inputs import Row
from autotune.policy import Policy
from autotune.workflows.setup import Setup
from autotune.workflows.tradeoff import run_tradeoff_study
from autotune.workflows.tune import TuneResult, tune

DIMENSIONS = 8
TRIALS = 16
"""As many as there are known recipes."""
THINGS = ("apple", "dog", "moon", "tram", "sun", "hat")
PROMPTS = [f"{style} {thing}" for style in ("noto", "fluent") for thing in THINGS]
HELD_OUT = [f"{style} {thing}" for style in ("twitter", "plain") for thing in THINGS]


def tiny_pipeline() -> Any:
    """A tiny untrained StableDiffusionPipeline: three levels, latents of 16x16, nine words."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=8,
        norm_num_groups=4,
    )
    vae = AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )  # fmt: skip
    vocabulary = {word: index for index, word in enumerate(("<unk>", "apple", "dog", "noto", "<end>"))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", pad_token="<end>", model_max_length=8
    )
    text = CLIPTextConfig(
        vocab_size=5, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=8, bos_token_id=0, eos_token_id=4,
    )  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text).eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def pipe() -> Any:
    return tiny_pipeline()


def prompt_features(prompts: Sequence[str]) -> Tensor:
    """(N, DIMENSIONS) unit vectors, a function of the prompt's last word: styles look alike here."""
    rows = []
    for prompt in prompts:
        numbers = random.Random(prompt.split()[-1])
        rows.append([numbers.gauss(0, 1) for _ in range(DIMENSIONS)])
    return torch.nn.functional.normalize(torch.tensor(rows), dim=1)


class ReadingScorer:
    """Reads the features that :class:`FakePictures` wrote into the first row of pixels."""

    def image_features(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images[:, 0, 0].float() - 128, dim=1)

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        return prompt_features(prompts)


def degradation_of_saving(policy: Policy) -> float:
    """Quality rises with steps alone: what spends its budget on many cheap steps wins."""
    return 1 / policy.steps


def degradation_of_anything_else(policy: Policy) -> float:
    """Fewer steps hardly hurt, everything else does."""
    return 0.05 / policy.steps + 0.5 * bool(policy.cache or policy.resolution or policy.guidance or policy.scheduler)


@dataclass
class FakePictures:
    """Pictures (N, 3, 8, 8) whose features drift from their prompt's with the policy's degradation.

    ``before`` is called with the number of calls so far and the policy, and may raise. ``batch`` pictures come at
    once; by default all.
    """

    degradation: Callable[[Policy], float] = degradation_of_saving
    before: Callable[[int, Policy], None] = lambda count, policy: None
    made: list[str] = field(default_factory=list)
    batch: int | None = None

    def __call__(
        self, policy: Policy, prompts: Sequence[str], seeds: Sequence[int], on_batch: Any = None
    ) -> Iterator[Tensor]:
        self.before(len(self.made), policy)
        self.made.append(policy.key)
        noise = torch.stack([torch.randn(DIMENSIONS, generator=torch.Generator().manual_seed(s)) for s in seeds])
        features = prompt_features(prompts) + self.degradation(policy) * (torch.ones(DIMENSIONS) + 0.3 * noise)
        values = (128 + 40 * features).round().clamp(0, 255).to(torch.uint8)
        for batch in values.split(self.batch or len(values)):
            yield batch[:, None, None].expand(-1, 3, 8, -1).clone()


def of_prompts(
    fake: Callable[..., Iterator[Tensor]], policy: Policy, rows: Sequence[Row], *rest: Any, **more: Any
) -> Any:
    """Pictures of inputs that are prompts, from what makes them of these."""
    return fake(policy, [row.prompt for row in rows], *rest, **more)


def use_pictures(fake: FakePictures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put them in the place of a pipeline's, for every search."""
    monkeypatch.setattr(Setup, "pictures", lambda setup, *args, **more: of_prompts(fake, *args, **more))


@pytest.fixture
def pictures(monkeypatch: pytest.MonkeyPatch) -> FakePictures:
    """Takes the place of the pipeline in ``tune``."""
    fake = FakePictures()
    use_pictures(fake, monkeypatch)
    return fake


@pytest.fixture
def batched(pictures: FakePictures) -> FakePictures:
    """The same, sixteen at a time."""
    pictures.batch = 16
    return pictures


def search_arguments(folder: Path) -> dict[str, Any]:
    return {
        "prompts": PROMPTS, "held_out": HELD_OUT, "scorer": ReadingScorer(), "steps": 10, "images": 12,
        "held_out_images": 12, "trials": TRIALS, "run_dir": folder, "study_name": "study", "quiet": True,
        "judges": ["distance:1", "alignment:4"],
        "second_opinion": "none",
    }  # fmt: skip


@pytest.fixture
def arguments(tmp_path: Path) -> dict[str, Any]:
    """For ``tune(pipe, "40%", **arguments)``: a search of a second."""
    return search_arguments(tmp_path / "run")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TuneResult:
    """What ``arguments`` find, uninterrupted. Only to be read."""
    return _whole(tmp_path_factory.getbasetemp())


@cache
def _whole(folder: Path) -> TuneResult:
    """Once, however many packages of tests import the fixture."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_pictures(FakePictures(), monkeypatch)
        return tune(tiny_pipeline(), "40%", **search_arguments(folder / "whole"))


@pytest.fixture(scope="session")
def explained(pipe: Any, whole: TuneResult, tmp_path_factory: pytest.TempPathFactory) -> TuneResult:
    """A copy of ``whole`` that was asked for fewer or cheaper steps at two budgets. Only to be read."""
    folder = tmp_path_factory.mktemp("explained") / "run"
    shutil.copytree(whole.run_dir, folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_pictures(FakePictures(), monkeypatch)
        monkeypatch.setattr(
            "autotune.workflows.tune.run_tradeoff_study",
            functools.partial(run_tradeoff_study, budgets=("5%", "40%"), trials=1),
        )
        return tune(pipe, "40%", **search_arguments(folder), explain=True)


@pytest.fixture
def continued(whole: TuneResult, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments that continue a copy of ``whole``."""
    shutil.copytree(whole.run_dir, arguments["run_dir"])
    return arguments
