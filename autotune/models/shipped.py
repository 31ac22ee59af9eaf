"""The trained models inside this package: their names, their folders, and how they are loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autotune.core.errors import InputError, did_you_mean
from autotune.pipelines.card import ModelCard, read_card

_MODELS = Path(__file__).parent

DEMO_NAMES = ("emoji-unet", "emoji-dit")

FULL_RUNS = _MODELS / "full-runs"
"""What judges saw of the full runs of these models, as runs with default options keep it, by the digest of all that
decides it. ``python -m studies.emoji.full_runs`` writes it."""

DEFAULT = DEMO_NAMES[0]
"""What is tuned where no model is named."""


@dataclass(frozen=True)
class DemoAssets:
    """What belongs to a shipped model, as its card says.

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


def demo_assets(name: str = DEFAULT) -> DemoAssets:
    """Paths and prompts of a shipped model.

    Raises:
        InputError: no model of that name is shipped.
    """
    from autotune.quality.prompts import load_prompts

    folder = shipped_folder(name)
    if folder is None:
        raise InputError(f"no model named {name!r} is shipped{did_you_mean(name, DEMO_NAMES)}")
    card = read_card(folder)
    assert card.scorer and card.reference and card.prompts and card.held_out, "shipped models say everything"
    assert card.full_steps is not None and card.guidance_scale is not None, "shipped models say everything"
    return DemoAssets(
        folder=folder,
        scorer_dir=Path(card.scorer),
        reference=Path(card.reference),
        tuning_prompts=load_prompts(card.prompts),
        held_out_prompts=load_prompts(card.held_out),
        full_steps=card.full_steps,
        guidance_scale=card.guidance_scale,
        call=card.call,
    )


def shipped_folder(name: str) -> Path | None:
    """The folder of the shipped model of that name, if there is one."""
    return _MODELS / name if name in DEMO_NAMES else None


def shipped_name(folder: Path) -> str | None:
    """The name of the shipped model in ``folder``, if it is one."""
    folder = folder.resolve()
    return folder.name if folder.parent == _MODELS.resolve() and folder.name in DEMO_NAMES else None


def card_of_source(source: str) -> ModelCard:
    """The card of a model by what loads it: a shipped model's name or a folder; those on the hub have none here.

    Raises:
        InputError: the card cannot be used.
    """
    return read_card(shipped_folder(source) or Path(source))


def code_to_load(source: str) -> tuple[list[str], str]:
    """Python that loads a model by what loads it: imports besides this package's, and an expression.

    Example:
        >>> code_to_load("emoji-unet")
        ([], 'autotune.demo_pipeline("emoji-unet")')
    """
    if shipped_folder(source) is not None:
        return [], f'autotune.demo_pipeline("{source}")'
    quoted = source.replace("\\", "\\\\").replace('"', '\\"')
    return ["from diffusers import DiffusionPipeline"], f'DiffusionPipeline.from_pretrained("{quoted}")'


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


def demo_pipeline(name: str = DEFAULT) -> Any:
    """A shipped, trained pipeline in fp32 on the CPU, with channels last, as a CPU computes convolutions fastest.

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

    from autotune.runtime.models import denoiser_of

    folder = demo_assets(name).folder
    with _quiet_loading():
        pipe = DiffusionPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    # Stored in half precision; only transformers' part keeps that when loading.
    pipe.text_encoder.to(torch.float32)
    for part in (denoiser_of(pipe), pipe.vae):
        part.to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(leave=False)
    return pipe
