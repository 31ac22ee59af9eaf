"""What is known of each class of pipelines: where its denoiser is, what it is called with, how guidance is batched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.core.errors import InputError
from autotune.pipelines.families.base import Family, LatentSize
from autotune.pipelines.families.calls import CallSignature
from autotune.pipelines.families.generic import GenericFamily
from autotune.pipelines.families.guider import HunyuanImage
from autotune.pipelines.families.kandinsky import Kandinsky5, Kandinsky5FromPicture
from autotune.pipelines.families.packed import (
    Chroma,
    Flux,
    Flux2,
    Flux2Klein,
    FluxControlNet,
    FluxFill,
    FluxKontext,
    QwenImage,
    QwenImageEdit,
)
from autotune.pipelines.families.scheduling import SchedulerCalls, scheduler_calls
from autotune.pipelines.families.transformer import (
    AuraFlow,
    CogView4,
    DiT,
    HunyuanDiT,
    Lumina2,
    PixArt,
    Sana,
    StableDiffusion3,
    StableDiffusion3ControlNet,
    ZImage,
)
from autotune.pipelines.families.unet import (
    ControlNet,
    InstructPix2Pix,
    LatentConsistency,
    PerturbedAttention,
    StableDiffusion,
    T2IAdapter,
    T2IAdapterSD,
    Unconditional,
)
from autotune.pipelines.families.video import Wan

_FAMILIES: tuple[type[Family], ...] = (
    StableDiffusion,
    ControlNet,
    T2IAdapter,
    T2IAdapterSD,
    InstructPix2Pix,
    PerturbedAttention,
    LatentConsistency,
    Unconditional,
    PixArt,
    DiT,
    StableDiffusion3,
    StableDiffusion3ControlNet,
    Flux,
    FluxControlNet,
    FluxFill,
    FluxKontext,
    Flux2,
    Flux2Klein,
    Chroma,
    Sana,
    Lumina2,
    AuraFlow,
    HunyuanDiT,
    HunyuanImage,
    QwenImage,
    QwenImageEdit,
    ZImage,
    CogView4,
    Kandinsky5,
    Kandinsky5FromPicture,
    Wan,
)
_BY_PIPELINE = {name: family for family in _FAMILIES for name in family.pipelines}
_BY_DENOISER = {name: family for family in reversed(_FAMILIES) for name in family.denoisers}
# Pipelines that were looked into, and why they are not listed.
_UNFIT: Mapping[str, str] = {
    "QwenImageEditPlusPipeline": "it takes one prompt a call, where pictures are made in batches",
}
# Packages of pipelines that others wrote: diffusers' own, and those it downloads (``custom_pipeline``).
_UNKNOWN = "so it is not known how it batches guidance and what it passes to its denoiser and scheduler"
_OF_OTHERS = ("diffusers", "diffusers_modules")


def family_of(pipe: Any) -> Family:
    """The family of a pipeline: by its class or one it derives from, else by its denoiser's class, else a generic one.

    Raises:
        InputError: the class is unknown and the pipeline has neither a ``unet`` nor a ``transformer``.
    """
    for parent in type(pipe).__mro__:
        if parent.__name__ in _BY_PIPELINE:
            return _BY_PIPELINE[parent.__name__].of(pipe)
    denoiser = next(
        (module for name in ("transformer", "unet") if (module := getattr(pipe, name, None)) is not None), None
    )
    if denoiser is None:
        raise InputError(
            f"{type(pipe).__name__} has neither a unet nor a transformer; supported pipelines:"
            f" {', '.join(sorted(_BY_PIPELINE))}, and others that have one"
        )
    family = _BY_DENOISER.get(type(getattr(denoiser, "_orig_mod", denoiser)).__name__, GenericFamily)
    return family.of(pipe)


def check_tested(pipe: Any) -> None:
    """Refuse a stock pipeline that is not listed: nobody has tested policies in its calls.

    What counts is the class that defines ``__call__``. A class derived from a listed one runs the listed call, and a
    call of one's own is its author's to test.

    Raises:
        InputError: it is diffusers' own, or downloaded by it, and not listed; one sentence says what is not known.
    """
    owner = next((parent for parent in type(pipe).__mro__ if "__call__" in vars(parent)), object)
    if owner.__module__.partition(".")[0] in _OF_OTHERS and owner.__name__ not in _BY_PIPELINE:
        reason = _UNFIT.get(owner.__name__)
        raise InputError(
            f"{owner.__name__} is not among the tested pipelines, "
            + (f"for {reason}" if reason else _UNKNOWN)
            + ": use one that `postdiff models` lists, or try a policy of your own with apply_policy(..., strict=False)"
            " and check its pictures"
        )


def supported() -> list[tuple[str, str, str]]:
    """Every supported pipeline class with its denoiser's class and a few words about it."""
    listed = [(name, " or ".join(f.denoisers), _notes(f)) for f in _FAMILIES for name in f.pipelines]
    return [*listed, ("any other", " or ".join(GenericFamily.denoisers), GenericFamily.notes)]


def _notes(family: type[Family]) -> str:
    return f"{family.notes}; not tuned: {family.not_tuned}" if family.not_tuned else family.notes


__all__ = [
    "CallSignature",
    "Family",
    "GenericFamily",
    "LatentSize",
    "SchedulerCalls",
    "check_tested",
    "family_of",
    "scheduler_calls",
    "supported",
]
