"""What is known of a pipeline's class beyond what every pipeline has in common; the defaults are Stable Diffusion's."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.families.calls import CallSignature, Conditioning

_MOST_TOKENS = 10**6
CONTROLNET_NOTES = "no low resolution; the ControlNet runs in full at every step, and its cost is in no price"
CONTROLNET_REFUSES = {"resolution": "what its ControlNet adds is of full size"}
# Features of ControlNets and T2I-Adapters.
_FULL_SIZE = (
    "down_block_additional_residuals",
    "mid_block_additional_residual",
    "down_intrablock_additional_residuals",
    "block_controlnet_hidden_states",
    "controlnet_block_samples",
    "controlnet_single_block_samples",
)


@dataclass(frozen=True)
class LatentSize:
    """Size of the latents before any packing into tokens."""

    height: int
    width: int
    frames: int = 1


class Family:
    """Where a pipeline's denoiser is, what it is called with, and what of that depends on the picture's size.

    Attributes:
        pipelines: names of the pipeline classes.
        denoisers: names of the denoiser classes they use.
        notes: what a user should know, in a few words.
        not_tuned: why the tuner refuses these pipelines, in words that follow their names; empty where it does not.
        component: the pipeline's attribute that holds the denoiser.
        branches: guidance computes both branches in one call of the denoiser, or each in its own,
            the conditional one first.
        conditional_first: batched rows are [conditional, unconditional] rather than the other way round.
        shared_arguments: names of the denoiser's arguments that have no row per picture.
        guided: whether a call that names no guidance scale uses classifier-free guidance.
        rows: of a picture in a call of the denoiser that count as one branch, for they take different work.
        latent_rows: rows of latents that a guided call holds for a picture.
        rounding: sides of the latents are rounded down to multiples of this.
        conditioning: what a row of a batch depicts by.
        guidance_argument: the call's argument that turns on classifier-free guidance, where it takes one by that name.
        guided_above: guidance computes two branches above this value of it.
        needs_negative_prompt: there is no guidance without a negative prompt.
        guiders: names of the pipeline's components that weigh the branches: they turn guidance on, not an argument.
        embedded_guidance: the call's argument of a guidance scale that is a mere input of the denoiser.
        output_types: the values of ``output_type`` that return what they say.
        pixel_multiple: the pipeline refuses sides that are no multiples of so many pixels.
        adapters: of each IP-Adapter of the denoiser the tokens that it makes of a picture, and the width of its input;
            None of one that reads more than the picture's embedding.
        picture_arguments: arguments of a call that a picture must be given for, where the pipeline takes them.
        variant: what of this very pipeline or call, besides its denoiser, decides what that is called with; the same
            in every process.
        refuses: fields of a policy that these pipelines cannot follow, and why, in words that follow a colon.
        refused_arguments: arguments of a call that no policy can follow, and why, in words that follow "for".
    """

    pipelines: tuple[str, ...] = ()
    denoisers: tuple[str, ...] = ()
    notes: str = ""
    not_tuned: str = ""
    component: Literal["unet", "transformer"] = "transformer"
    branches: Literal["batched", "separate"] = "batched"
    conditional_first: bool = False
    shared_arguments: frozenset[str] = frozenset()
    guided: bool = True
    rows: int = 1
    latent_rows: int = 1
    rounding: int = 1
    conditioning: Conditioning = "prompt"
    guidance_argument: str | None = "guidance_scale"
    guided_above: float = 1.0
    needs_negative_prompt: bool = False
    guiders: tuple[str, ...] = ()
    embedded_guidance: str | None = None
    output_types: frozenset[str] = frozenset({"pil", "np", "pt", "latent"})
    pixel_multiple: int = 8
    adapters: tuple[tuple[int, int] | None, ...] = ()
    picture_arguments: tuple[str, ...] = ("image", "mask_image", "control_image")
    variant: tuple[Any, ...] = ()
    refuses: Mapping[str, str] = {}
    refused_arguments: Mapping[str, str] = {}

    @classmethod
    def of(cls, pipe: Any) -> Family:
        """The family of this very pipeline."""
        return cls()

    def for_call(self, guided: bool, call: Mapping[str, Any] = {}) -> Family:
        """The family as calls with these arguments use it, with or without guidance."""
        return self

    def denoiser(self, pipe: Any) -> nn.Module:
        """The module that the pipeline evaluates at every step.

        Raises:
            InputError: the pipeline has none, or several that take turns.
        """
        module: nn.Module | None = getattr(pipe, self.component, None)
        if module is None:
            raise InputError(
                f"{type(pipe).__name__} has no {self.component}: load the pipeline with its {self.component}"
            )
        return module

    def native_size(self, pipe: Any) -> tuple[int, int]:
        """Height and width in pixels that the model was made for.

        Raises:
            InputError: neither the denoiser's config nor the pipeline says so.
        """
        size = getattr(self._config(pipe), "sample_size", None) or getattr(pipe, "default_sample_size", None)
        if size is None:
            raise InputError(
                f"{type(pipe).__name__} does not say which size its model was made for: give height and width"
            )
        height, width = (size, size) if isinstance(size, int) else size
        scale = self.pixels_per_latent(pipe)
        return int(height) * scale, int(width) * scale

    def pixels_per_latent(self, pipe: Any) -> int:
        """How many pixels a side one latent stands for."""
        return int(getattr(pipe, "vae_scale_factor", 1))

    def latent_size(
        self,
        pipe: Any,
        height: int,
        width: int,
        frames: int | None = None,
        call: Mapping[str, Any] = {},
    ) -> LatentSize:
        """Size of the latents for pictures of ``height`` x ``width`` pixels, rounded as the pipeline does.

        Args:
            call: other arguments of the pipeline's call that bear on it (``use_resolution_binning``).
        """
        if call.get("use_resolution_binning", True):
            height, width = self._binned(pipe, height, width)
        unit = self.pixels_per_latent(pipe) * self.rounding
        return LatentSize(height // unit * self.rounding, width // unit * self.rounding)

    def call_signature(self, pipe: Any) -> CallSignature:
        """What the pipeline's call takes, and the defaults of its guidance."""
        parameters = inspect.signature(type(pipe).__call__).parameters
        takes = {
            name: parameter.default
            for name, parameter in list(parameters.items())[1:]
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        }
        guidance = self.guidance_argument if self.guidance_argument in takes else None
        embedded = self.embedded_guidance if self.embedded_guidance in takes else None
        return CallSignature(
            takes=frozenset(takes),
            conditioning=self.conditioning,
            classes=self.classes(pipe),
            guidance_argument=guidance,
            default_guidance=None if guidance is None else takes[guidance],
            guided_above=self.guided_above,
            guided_by_itself=bool(self.guiders) and self.guided,
            needs_negative_prompt=self.needs_negative_prompt,
            embedded_guidance=embedded,
            default_embedded=None if embedded is None else takes[embedded],
            takes_size="height" in takes and "width" in takes,
            size_multiple=self.size_multiple(pipe),
            pictures=tuple(name for name in self.picture_arguments if name in takes),
            output_types=self.output_types,
        )

    def classes(self, pipe: Any) -> int | None:
        """How many classes a class-conditional model knows."""
        return None

    def size_multiple(self, pipe: Any) -> int:
        """Sides of pictures must be multiples of so many pixels."""
        patch = getattr(self._config(pipe), "patch_size", None)
        latents = math.lcm(self.rounding, patch if isinstance(patch, int) else 1)
        return math.lcm(self.pixel_multiple, self.pixels_per_latent(pipe) * latents)

    def bins_are_native(self, pipe: Any) -> bool:
        """Whether the sizes that a call may be moved to (:attr:`CallSignature.bins_sizes`) are of this model's kind."""
        bins = self._bins(pipe) or {}
        return list(self.native_size(pipe)) in [[int(side) for side in sides] for sides in bins.values()]

    def branch_count(self, guided: bool, call: Mapping[str, Any] = {}) -> int:
        """Branches that a step computes for a picture in calls with these arguments, with or without guidance."""
        return 2 if guided else 1

    def image_tokens(self, pipe: Any, size: LatentSize) -> int:
        """Tokens of a picture as the pipeline counts them to shift a flow's noise levels: patches of 2x2 latents."""
        return size.height // 2 * (size.width // 2)

    def default_frames(self, pipe: Any) -> int | None:
        """Frames of a video when the call names none; None for pictures."""
        return None

    def text_tokens(self, pipe: Any, call: Mapping[str, Any] = {}) -> int:
        """Tokens of one prompt that reach the denoiser; the most that may where prompts are not padded.

        Args:
            call: arguments of the pipeline's call that differ from its defaults (``max_sequence_length``), and the
                size of its pictures.
        """
        return int(_argument(pipe, call, "max_sequence_length"))

    def pictures(self, denoiser: nn.Module, rows: int, kwargs: Mapping[str, Any]) -> int:
        """Pictures in a denoiser call of so many rows, where the pipeline has no ``prepare_latents`` that tells."""
        return rows

    def spatial(self, latents: Tensor, size: LatentSize) -> Tensor:
        """Latents in the pipeline's form as (B, C, H, W), or (B, C, F, H, W) for videos."""
        return latents

    def packed(self, latents: Tensor, size: LatentSize) -> Tensor:
        """The inverse of :meth:`spatial`."""
        return latents

    def latent_elements(self, config: Any, size: LatentSize, text_tokens: int) -> int:
        """Number of values in one picture's latents."""
        with torch.device("meta"):
            sample = next(iter(self.inputs(config, size, text_tokens).values()))
        return sum(tensor.numel() for tensor in sample) if isinstance(sample, list) else int(sample.numel())

    def size_of(self, sample: Any, kwargs: Mapping[str, Any]) -> LatentSize:
        """Size of the latents in a call of the denoiser."""
        row = sample[0]
        return LatentSize(int(row.shape[-2]), int(row.shape[-1]), int(row.shape[1]) if row.ndim == 4 else 1)

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        """The denoiser's arguments, but for the sample, at ``size``, given those the pipeline made for ``full``."""
        return kwargs

    def full_size_argument(self, kwargs: Mapping[str, Any]) -> str | None:
        """What a denoiser call is given that others compute at full size, so that there is no lower one; else None."""
        return next((name for name in _FULL_SIZE if kwargs.get(name) is not None), None)

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        """Arguments of one call of the denoiser for one branch of a picture, shaped as the pipeline shapes them.

        Their values mean nothing; callers make them on the ``meta`` device.
        """
        raise NotImplementedError

    def prepare(self, skeleton: nn.Module) -> None:
        """Make of a weightless copy of the denoiser what the pipeline makes of the denoiser while a call lasts."""

    def _config(self, pipe: Any) -> Any:
        denoiser = self.denoiser(pipe)
        return getattr(getattr(denoiser, "_orig_mod", denoiser), "config", None)

    def _bins(self, pipe: Any) -> Mapping[str, Any] | None:
        """Sizes by aspect ratio that the pipeline chooses from, or None where it takes any."""
        return None

    def _binned(self, pipe: Any, height: int, width: int) -> tuple[int, int]:
        bins = self._bins(pipe)
        if bins is None or not self.bins_are_native(pipe):
            return height, width
        nearest = bins[min(bins, key=lambda ratio: abs(float(ratio) - height / width))]
        return int(nearest[0]), int(nearest[1])


def pack(latents: Tensor) -> Tensor:
    """(B, C, H, W) as tokens of 2x2 latents, (B, H/2 * W/2, C * 4)."""
    batch, channels, height, width = latents.shape
    latents = latents.reshape(batch, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return latents.reshape(batch, height // 2 * (width // 2), channels * 4)


def unpack(tokens: Tensor, size: LatentSize) -> Tensor:
    """The inverse of :func:`pack`."""
    batch, _, channels = tokens.shape
    latents = tokens.reshape(batch, size.height // 2, size.width // 2, channels // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return latents.reshape(batch, channels // 4, size.height, size.width)


def timestep() -> Tensor:
    return torch.empty(1)


def padded_tokens(pipe: Any, tokenizer: Any) -> int:
    """Tokens a tokenizer pads prompts to.

    Raises:
        InputError: the tokenizer does not say; transformers then puts a number no prompt could have.
    """
    length = getattr(tokenizer, "model_max_length", None)
    if length is None or length > _MOST_TOKENS:
        raise InputError(
            f"{type(pipe).__name__} does not say how many tokens it pads prompts to: set"
            " pipe.tokenizer.model_max_length to that number"
        )
    return int(length)


def _argument(pipe: Any, call: Mapping[str, Any], name: str) -> Any:
    """What a pipeline's call takes for ``name``: what is given, else its default."""
    if name in call:
        return call[name]
    return inspect.signature(type(pipe).__call__).parameters[name].default
