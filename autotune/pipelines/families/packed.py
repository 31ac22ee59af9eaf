"""Pipelines that pack 2x2 latents into a token before the transformer sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.families.base import (
    CONTROLNET_NOTES,
    CONTROLNET_REFUSES,
    Family,
    LatentSize,
    pack,
    timestep,
    unpack,
)


class _Packed(Family):
    branches = "separate"
    guided = False  # there is none without a negative prompt
    guidance_argument: str | None = "true_cfg_scale"
    needs_negative_prompt = True
    embedded_guidance: str | None = "guidance_scale"
    rounding = 2
    pixel_multiple = 1

    def spatial(self, latents: Tensor, size: LatentSize) -> Tensor:
        """Some are spatial before they are packed, of Qwen-Image as videos of one frame."""
        if latents.ndim == 3:
            return unpack(latents, size)
        return latents.squeeze(1) if latents.ndim == 5 else latents

    def packed(self, latents: Tensor, size: LatentSize) -> Tensor:
        return pack(latents)


def _checked(size: LatentSize, sample: Tensor) -> LatentSize:
    if size.height // 2 * (size.width // 2) != sample.shape[1]:
        raise InputError(
            f"the denoiser is given {sample.shape[1]} tokens for latents of {size.height}x{size.width}: pipelines that"
            " add the tokens of other pictures are not supported"
        )
    return size


def _size_by_ids(ids: Tensor) -> LatentSize:
    """Of a picture whose tokens (N, 3 or more) have row and column behind their first number."""
    height, width = ids[:, 1:3].amax(0).tolist()
    return LatentSize(2 * (int(height) + 1), 2 * (int(width) + 1))


def _made_size(ids: Tensor, sample: Tensor) -> LatentSize:
    """Of the picture that is made, whose tokens begin with a 0; those of given pictures come behind them."""
    own = ids[ids[:, 0] == 0]
    return _checked(_size_by_ids(own), sample[:, : len(own)])


class Flux(_Packed):
    pipelines: tuple[str, ...] = ("FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline")
    denoisers: tuple[str, ...] = ("FluxTransformer2DModel",)
    notes = "guided only with true_cfg_scale above 1 and a negative prompt"
    shared_arguments = frozenset({"img_ids", "txt_ids", "joint_attention_kwargs"})

    def size_of(self, sample: Any, kwargs: Mapping[str, Any]) -> LatentSize:
        ids = kwargs["img_ids"]
        return _checked(_size_by_ids(ids.reshape(-1, ids.shape[-1])), sample)

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        return kwargs | {"img_ids": _token_ids(size).to(kwargs["img_ids"])}

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        ids = torch.empty(size.height // 2 * (size.width // 2), 3)
        given = {
            "hidden_states": torch.empty(1, len(ids), config.in_channels),
            "timestep": timestep(),
            "pooled_projections": torch.empty(1, config.pooled_projection_dim),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.joint_attention_dim),
            "txt_ids": torch.empty(text_tokens, 3),
            "img_ids": ids,
        }
        if config.guidance_embeds:
            given["guidance"] = torch.empty(1)
        return given


class FluxControlNet(Flux):
    pipelines = ("FluxControlNetPipeline",)
    notes = CONTROLNET_NOTES
    refuses = CONTROLNET_REFUSES


class Chroma(Flux):
    """FLUX without a pooled text, and with a mask of text and picture."""

    pipelines = ("ChromaPipeline",)
    denoisers = ("ChromaTransformer2DModel",)
    notes = "text to image"
    guided = True
    guidance_argument = "guidance_scale"
    needs_negative_prompt = False
    embedded_guidance = None

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        mask: Tensor = kwargs["attention_mask"]
        text = mask[:, : mask.shape[1] - full.height // 2 * (full.width // 2)]
        picture = mask.new_ones(len(mask), size.height // 2 * (size.width // 2))
        resized = super().resized_arguments(denoiser, kwargs, size, full)
        return resized | {"attention_mask": torch.cat([text, picture], dim=1)}

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        ids = torch.empty(size.height // 2 * (size.width // 2), 3)
        return {
            "hidden_states": torch.empty(1, len(ids), config.in_channels),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.joint_attention_dim),
            "timestep": timestep(),
            "img_ids": ids,
            "txt_ids": torch.empty(text_tokens, 3),
            "attention_mask": torch.empty(1, text_tokens + len(ids)),
        }


class FluxFill(Flux):
    """Masked picture and mask are channels of the tokens behind the latents."""

    pipelines = ("FluxFillPipeline",)
    notes = "inpainting and outpainting"
    guidance_argument = None

    def latent_elements(self, config: Any, size: LatentSize, text_tokens: int) -> int:
        return int(config.out_channels) * (size.height // 2) * (size.width // 2)


class FluxKontext(Flux):
    """The tokens of the given picture come behind the latents; they have a 1 where those have a 0."""

    pipelines = ("FluxKontextPipeline",)
    notes = "prices are of a given picture of the result's size; no low resolution"
    refuses = {"resolution": "its denoiser reads the given picture besides, at full size"}

    # Of the pictures that it makes, unless a call names another.
    _area = 1024**2

    def latent_size(
        self, pipe: Any, height: int, width: int, frames: int | None = None, call: Mapping[str, Any] = {}
    ) -> LatentSize:
        """The pipeline keeps the ratio of the sides and moves their product to ``max_area``."""
        area, ratio = call.get("max_area", self._area), width / height
        return super().latent_size(pipe, round((area / ratio) ** 0.5), round((area * ratio) ** 0.5), frames, call)

    def size_of(self, sample: Any, kwargs: Mapping[str, Any]) -> LatentSize:
        return _made_size(kwargs["img_ids"], sample)

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        given = super().inputs(config, size, text_tokens)
        tokens, ids = given["hidden_states"], given["img_ids"]
        return given | {"hidden_states": torch.cat([tokens] * 2, dim=1), "img_ids": torch.cat([ids] * 2)}


class Flux2(_Packed):
    """Every token has the number of its picture, row, column and place in the text; 0 is the picture that is made."""

    pipelines: tuple[str, ...] = ("Flux2Pipeline",)
    denoisers = ("Flux2Transformer2DModel",)
    notes = "prices are without given pictures; with one, no low resolution"
    guidance_argument: str | None = None
    needs_negative_prompt = False
    shared_arguments = frozenset({"joint_attention_kwargs"})
    # No call needs one.
    picture_arguments = ()

    def size_of(self, sample: Any, kwargs: Mapping[str, Any]) -> LatentSize:
        return _made_size(kwargs["img_ids"][0], sample)

    def full_size_argument(self, kwargs: Mapping[str, Any]) -> str | None:
        """Given pictures have tokens of their own."""
        return "the tokens of given pictures" if bool((kwargs["img_ids"][..., 0] > 0).any()) else None

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        given = kwargs["img_ids"]
        ids = nn.functional.pad(_token_ids(size), (0, 1)).to(given)
        return kwargs | {"img_ids": ids.expand(len(given), -1, -1)}

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        tokens = size.height // 2 * (size.width // 2)
        given = {
            "hidden_states": torch.empty(1, tokens, config.in_channels),
            "timestep": timestep(),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.joint_attention_dim),
            "txt_ids": torch.empty(1, text_tokens, 4),
            "img_ids": torch.empty(1, tokens, 4),
        }
        if config.guidance_embeds:
            given["guidance"] = torch.empty(1)
        return given


class Flux2Klein(Flux2):
    pipelines = ("Flux2KleinPipeline",)
    guided = True
    guidance_argument: str | None = "guidance_scale"
    embedded_guidance = None

    @classmethod
    def of(cls, pipe: Any) -> Family:
        """Distilled models ignore the guidance scale."""
        family = cls()
        if pipe.config.is_distilled:
            family.guided, family.guidance_argument = False, None
        return family


def _token_ids(size: LatentSize) -> Tensor:
    """Row and column of every token, behind a zero that stands for the text."""
    ids = torch.zeros(size.height // 2, size.width // 2, 3)
    ids[..., 1] += torch.arange(size.height // 2)[:, None]
    ids[..., 2] += torch.arange(size.width // 2)[None, :]
    return ids.reshape(-1, 3)


class QwenImage(_Packed):
    pipelines: tuple[str, ...] = ("QwenImagePipeline", "QwenImageImg2ImgPipeline", "QwenImageInpaintPipeline")
    denoisers = ("QwenImageTransformer2DModel",)
    notes = "prices are of prompts that fill max_sequence_length, shorter ones cost less"
    shared_arguments = frozenset({"img_shapes", "attention_kwargs"})

    def size_of(self, sample: Any, kwargs: Mapping[str, Any]) -> LatentSize:
        _, height, width = kwargs["img_shapes"][0][0]
        return _checked(LatentSize(2 * height, 2 * width), sample)

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        return kwargs | {"img_shapes": [[(1, size.height // 2, size.width // 2)] for _ in kwargs["img_shapes"]]}

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        height, width = size.height // 2, size.width // 2
        given = {
            "hidden_states": torch.empty(1, height * width, config.in_channels),
            "timestep": timestep(),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.joint_attention_dim),
            "img_shapes": [[(1, height, width)]],
        }
        if getattr(config, "guidance_embeds", False):
            given["guidance"] = torch.empty(1)
        return given


class QwenImageEdit(QwenImage):
    """The tokens of the given picture come behind those of the latents, and others of it stand in the prompt.

    Whatever its size, the picture is read at about 1024 x 1024 pixels.
    """

    pipelines = ("QwenImageEditPipeline",)
    notes = (
        "prices are of a given picture of the result's shape, and of prompts of max_sequence_length tokens besides that"
        " picture's; no low resolution"
    )
    refuses = {"resolution": "its denoiser reads the given picture besides, at full size"}

    def __init__(self, pixels_per_latent: int) -> None:
        self.variant = (pixels_per_latent,)

    @classmethod
    def of(cls, pipe: Any) -> Family:
        return cls(int(pipe.vae_scale_factor))

    def native_size(self, pipe: Any) -> tuple[int, int]:
        return _picture_sides(1, 1)

    def text_tokens(self, pipe: Any, call: Mapping[str, Any] = {}) -> int:
        """The pipeline cuts no prompt: one of ``max_sequence_length`` tokens, and the given picture's."""
        return super().text_tokens(pipe, call) + self._picture_tokens(pipe, call)

    def size_of(self, sample: Any, kwargs: Mapping[str, Any]) -> LatentSize:
        _, height, width = kwargs["img_shapes"][0][0]
        return super().size_of(sample[:, : height * width], kwargs)

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        given = super().inputs(config, size, text_tokens)
        (pixels_per_latent,) = self.variant
        unit = 2 * pixels_per_latent
        height, width = (side // unit for side in _picture_sides(size.height, size.width))
        tokens = torch.empty(1, height * width, config.in_channels)
        shapes = [*given["img_shapes"][0], (1, height, width)]
        return given | {"hidden_states": torch.cat([given["hidden_states"], tokens], dim=1), "img_shapes": [shapes]}

    def _picture_tokens(self, pipe: Any, call: Mapping[str, Any]) -> int:
        """Of a given picture of the result's shape in the prompt; none where the pipeline has lost its processor."""
        processor: Any = getattr(getattr(pipe, "processor", None), "image_processor", None)
        if processor is None:
            return 0
        native = self.native_size(pipe)
        height, width = _picture_sides(call.get("height") or native[0], call.get("width") or native[1])
        patches: int = processor.get_number_of_image_patches(height, width)
        return patches // int(processor.merge_size) ** 2


def _picture_sides(height: int, width: int) -> tuple[int, int]:
    """Height and width in pixels at which Qwen-Image-Edit reads a picture of this shape."""
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit import calculate_dimensions

    width, height, _ = calculate_dimensions(1024 * 1024, width / height)
    return height, width
