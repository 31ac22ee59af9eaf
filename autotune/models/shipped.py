"""The trained models inside this package, and what is needed to tune and score them offline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.core.errors import InputError, did_you_mean
from autotune.quality.prompts import split

_MODELS = Path(__file__).parent

DEMO_NAMES = ("emoji-unet", "emoji-dit")


@dataclass(frozen=True)
class DemoAssets:
    """What belongs to a shipped model.

    Attributes:
        folder: the pipeline in diffusers format.
        scorer_dir: a CLIP in open_clip's format, trained on the same pictures.
        reference: Gaussian of that CLIP's features of the real pictures, a safetensors file.
        tuning_prompts: captions the model was trained on.
        held_out_prompts: captions it has never seen.
        full_steps: denoising steps of its full run.
        guidance_scale: the classifier-free guidance scale it is meant to run with.
        call: further arguments that calls of the pipeline need.
    """

    folder: Path
    scorer_dir: Path
    reference: Path
    tuning_prompts: list[str]
    held_out_prompts: list[str]
    full_steps: int
    guidance_scale: float
    call: Mapping[str, Any]

    def search_prompts(self) -> tuple[list[str], list[str]]:
        """Captions for a search, and those that judge what it found.

        The latter are all captions the model has never seen and a quarter of the others: intervals narrow with
        different captions, and hardly with more pictures of the same one.
        """
        tuning, aside = split(self.tuning_prompts)
        return tuning, aside + self.held_out_prompts


def demo_assets(name: str = "emoji-unet") -> DemoAssets:
    """Paths and prompts of a shipped model.

    Raises:
        InputError: no model of that name is shipped.
    """
    if name not in DEMO_NAMES:
        raise InputError(f"no model named {name!r} is shipped{did_you_mean(name, DEMO_NAMES)}")
    folder = _MODELS / name
    settings = json.loads((folder / "postdiff.json").read_text())
    captions = json.loads((_MODELS / "emoji-captions.json").read_text())
    return DemoAssets(
        folder=folder,
        scorer_dir=_MODELS / "emoji-clip",
        reference=_MODELS / "emoji-clip" / "reference" / "pictures.safetensors",
        tuning_prompts=captions["training"],
        held_out_prompts=captions["held_out"],
        full_steps=settings["full_steps"],
        guidance_scale=settings["guidance_scale"],
        call=settings.get("call", {}),
    )


@contextmanager
def _quiet_loading() -> Iterator[None]:
    """No progress bars for 10 MB, and no remark that AutoencoderTiny is not AutoencoderKL."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers = (diffusers_logging, transformers_logging)
    before = [logger.get_verbosity() for logger in loggers]
    for logger in loggers:
        logger.set_verbosity_error()
        logger.disable_progress_bar()
    try:
        yield
    finally:
        for logger, verbosity in zip(loggers, before, strict=True):
            logger.set_verbosity(verbosity)
            logger.enable_progress_bar()


def demo_pipeline(name: str = "emoji-unet") -> Any:
    """A shipped, trained pipeline in fp32 on the CPU.

    ``emoji-unet`` is a stock ``StableDiffusionPipeline``, ``emoji-dit`` a stock ``PixArtAlphaPipeline``,
    whose calls need the arguments in ``demo_assets(name).call``: PixArt bins picture sizes to those
    of its published models unless told not to.

    Raises:
        InputError: no model of that name is shipped.

    Example:
        >>> pipe = autotune.demo_pipeline()
        >>> pipe("fluent red apple", num_inference_steps=20).images[0].size
        (64, 64)
    """
    import torch
    from diffusers import DiffusionPipeline

    folder = demo_assets(name).folder
    with _quiet_loading():
        pipe = DiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    # Stored in half precision; only transformers' part keeps that when loading.
    pipe.text_encoder.to(torch.float32)
    pipe.set_progress_bar_config(leave=False)
    return pipe
