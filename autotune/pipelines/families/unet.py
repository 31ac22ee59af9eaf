"""Pipelines around a U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.families.base import (
    CONTROLNET_NOTES,
    CONTROLNET_REFUSES,
    Family,
    LatentSize,
    padded_tokens,
    timestep,
)

# InstructPix2Pix's default.
_IMAGE_GUIDANCE = 1.5
# PAG pipelines' default.
_PAG_SCALE = 3.0
# CLIP's, where a pipeline is run without its tokenizer.
_CLIP_TOKENS = 77


class StableDiffusion(Family):
    pipelines: tuple[str, ...] = (
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    )
    denoisers = ("UNet2DConditionModel",)
    component = "unet"

    @classmethod
    def of(cls, pipe: Any) -> Family:
        """With a U-Net that embeds the guidance scale, all of these pipelines drop the unconditional branch."""
        family = cls()
        denoiser = getattr(pipe, cls.component, None)
        config = getattr(getattr(denoiser, "_orig_mod", denoiser), "config", None)
        if getattr(config, "time_cond_proj_dim", None) is not None:
            family.guided, family.guidance_argument, family.embedded_guidance = False, None, "guidance_scale"
        family.adapters = _adapters(denoiser)
        return family

    def text_tokens(self, pipe: Any, call: Mapping[str, Any] = {}) -> int:
        tokenizer = getattr(pipe, "tokenizer", None) or getattr(pipe, "tokenizer_2", None)
        return _CLIP_TOKENS if tokenizer is None else padded_tokens(pipe, tokenizer)

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        """The target size is that of the smaller picture; it is still cut from an original of the same size."""
        added = kwargs.get("added_cond_kwargs") or {}
        ids: Tensor | None = added.get("time_ids")
        # Original height and width, crop, target height and width; the refiner has no target.
        if ids is None or ids.shape[-1] != 6:
            return kwargs
        height, width = ids[..., 4:5] * (size.height / full.height), ids[..., 5:] * (size.width / full.width)
        return kwargs | {"added_cond_kwargs": added | {"time_ids": torch.cat([ids[..., :4], height, width], dim=-1)}}

    def latent_elements(self, config: Any, size: LatentSize, text_tokens: int) -> int:
        """Inpainting models read mask and masked picture besides."""
        return int(config.out_channels) * size.height * size.width

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        features = getattr(config, "encoder_hid_dim", None) or config.cross_attention_dim
        given: dict[str, Any] = {
            "sample": torch.empty(1, config.in_channels, size.height, size.width),
            "timestep": timestep(),
            "encoder_hidden_states": torch.empty(1, text_tokens, features),
        }
        if getattr(config, "time_cond_proj_dim", None) is not None:
            given["timestep_cond"] = torch.empty(1, config.time_cond_proj_dim)
        if getattr(config, "addition_embed_type", None) == "text_time":
            # The refiner has five ids and a longer text embedding; only their sum is computed with.
            ids = 6
            width = config.projection_class_embeddings_input_dim - ids * config.addition_time_embed_dim
            given["added_cond_kwargs"] = {"text_embeds": torch.empty(1, width), "time_ids": torch.empty(1, ids)}
        if self.adapters:
            # One picture each; more cost more.
            embeds = [torch.empty(1, 1, adapter[1]) for adapter in self.adapters if adapter is not None]
            if len(embeds) < len(self.adapters):
                raise InputError(
                    "the price is not known of IP-Adapters that read more of a picture than its embedding (another"
                    " layer than ImageProjection): unload the IP-Adapter to count the denoiser without it"
                )
            given["added_cond_kwargs"] = {**given.get("added_cond_kwargs", {}), "image_embeds": embeds}
        return given


def _adapters(denoiser: Any) -> tuple[tuple[int, int] | None, ...]:
    """See :attr:`Family.adapters`."""
    layers = getattr(getattr(denoiser, "encoder_hid_proj", None), "image_projection_layers", ())
    return tuple(
        (layer.num_image_text_embeds, layer.image_embeds.in_features)
        if type(layer).__name__ == "ImageProjection"
        else None
        for layer in layers
    )


class ControlNet(StableDiffusion):
    """The network beside the U-Net adds its outputs, of full size, to the U-Net's features."""

    pipelines = ("StableDiffusionControlNetPipeline", "StableDiffusionXLControlNetPipeline")
    notes = CONTROLNET_NOTES
    refuses = CONTROLNET_REFUSES


class T2IAdapter(StableDiffusion):
    """What the adapter adds to the U-Net's features is computed once a call."""

    pipelines: tuple[str, ...] = ("StableDiffusionXLAdapterPipeline",)
    notes = "no low resolution"
    refuses = {"resolution": "what its adapter adds is of full size"}


class T2IAdapterSD(T2IAdapter):
    """Asked for tensors it returns arrays."""

    pipelines = ("StableDiffusionAdapterPipeline",)
    output_types = frozenset({"pil", "np", "latent"})


class InstructPix2Pix(StableDiffusion):
    """Three branches: with text and picture, with the picture, and without either."""

    pipelines = ("StableDiffusionInstructPix2PixPipeline",)
    notes = "three guidance branches, which no policy stops"
    conditional_first = True
    refuses = {"guidance": "it weighs three branches, and a policy can stop one of two only"}

    def branch_count(self, guided: bool, call: Mapping[str, Any] = {}) -> int:
        return 3 if guided and call.get("image_guidance_scale", _IMAGE_GUIDANCE) >= 1 else 1


class PerturbedAttention(StableDiffusion):
    """Further rows attend to themselves alone in some layers (perturbed-attention guidance, 2403.17377).

    Rows of a picture differ in what they take, so prices count all of them as one branch, in one call of the denoiser.
    """

    pipelines = ("StableDiffusionPAGPipeline", "StableDiffusionXLPAGPipeline")
    notes = "perturbed-attention guidance, which no policy stops; layers and pag_scale are the pipeline's"
    refuses = {"guidance": "it weighs perturbed rows besides, and which rows are conditional a policy cannot know"}

    def __init__(self) -> None:
        # Layers and the processors that perturb them; nothing where no row is perturbed.
        self._perturbs: tuple[list[str], tuple[Any, Any]] | None = None

    @classmethod
    def of(cls, pipe: Any) -> Family:
        family: Any = super().of(pipe)
        layers, processors = pipe.pag_applied_layers, pipe._pag_attn_processors
        if layers and processors:
            family._perturbs = list(layers), processors
            family.variant = (*layers, *(type(each).__qualname__ for each in processors))
        return family  # type: ignore[no-any-return]

    def for_call(self, guided: bool, call: Mapping[str, Any] = {}) -> Family:
        family = copy(self)
        family.rows = 2 if guided else 1
        if call.get("pag_scale", _PAG_SCALE) > 0 and self._perturbs:
            family.rows += 1
            family.variant = (*self.variant, family.rows)
        else:
            family._perturbs, family.variant = None, (family.rows,)
        return family

    def branch_count(self, guided: bool, call: Mapping[str, Any] = {}) -> int:
        return 1

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        given = super().inputs(config, size, text_tokens)
        return {name: _repeated(value, self.rows) for name, value in given.items()}

    def prepare(self, skeleton: nn.Module) -> None:
        if self._perturbs is None:
            return
        from diffusers.pipelines.pag.pag_utils import PAGMixin

        layers, processors = self._perturbs
        # What the method reads of its pipeline; the matching of layers stays diffusers' own.
        pipe = SimpleNamespace(unet=skeleton, _pag_attn_processors=processors)
        PAGMixin._set_pag_attn_processor(pipe, layers, self.rows == 3)


def _repeated(value: Any, rows: int) -> Any:
    """Arguments for one row as those of several; a number that all rows share stays."""
    if isinstance(value, dict):
        return {name: _repeated(each, rows) for name, each in value.items()}
    if isinstance(value, list):
        return [_repeated(each, rows) for each in value]
    return torch.cat([value] * rows) if value.ndim > 1 else value


class LatentConsistency(StableDiffusion):
    """The guidance scale is an input of the denoiser: there is one branch."""

    pipelines = ("LatentConsistencyModelPipeline",)
    guided = False
    guidance_argument = None
    embedded_guidance = "guidance_scale"


class Unconditional(Family):
    pipelines = ("DDPMPipeline", "DDIMPipeline")
    guided = False
    conditioning = "none"
    guidance_argument = None
    output_types = frozenset({"pil", "np", "pt"})
    pixel_multiple = 1
    denoisers = ("UNet2DModel",)
    notes = "unconditional, in pixels"
    component = "unet"

    def text_tokens(self, pipe: Any, call: Mapping[str, Any] = {}) -> int:
        return 0

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        sample = torch.empty(1, config.in_channels, size.height, size.width)
        return {"sample": sample, "timestep": timestep()}
