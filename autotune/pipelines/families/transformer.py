"""Pipelines around a transformer that takes latents as pictures and makes tokens of them itself."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autotune.pipelines.families.base import CONTROLNET_NOTES, CONTROLNET_REFUSES, Family, LatentSize, timestep

_CLIP_TOKENS = 77


def _picture(config: Any, size: LatentSize) -> Tensor:
    return torch.empty(1, config.in_channels, size.height, size.width)


class PixArt(Family):
    pipelines = ("PixArtAlphaPipeline", "PixArtSigmaPipeline")
    denoisers = ("PixArtTransformer2DModel",)
    notes = "text to image; sizes are binned by aspect ratio unless use_resolution_binning=False"

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        added = kwargs.get("added_cond_kwargs") or {}
        resolution, aspect_ratio = added.get("resolution"), added.get("aspect_ratio")
        if resolution is None or aspect_ratio is None:
            return kwargs
        scale = size.height / full.height, size.width / full.width
        resized = {
            "resolution": torch.cat([resolution[:, :1] * scale[0], resolution[:, 1:] * scale[1]], dim=1),
            "aspect_ratio": aspect_ratio * (scale[0] / scale[1]),
        }
        return kwargs | {"added_cond_kwargs": added | resized}

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        conditioned = config.sample_size == 128
        return {
            "hidden_states": _picture(config, size),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.caption_channels or config.cross_attention_dim),
            "encoder_attention_mask": torch.ones(1, text_tokens),
            "timestep": timestep(),
            "added_cond_kwargs": {
                "resolution": torch.empty(1, 2) if conditioned else None,
                "aspect_ratio": torch.empty(1, 1) if conditioned else None,
            },
        }

    def _bins(self, pipe: Any) -> Mapping[str, Any] | None:
        module = importlib.import_module(type(pipe).__module__)
        names = {256: "ASPECT_RATIO_2048_BIN", 128: "ASPECT_RATIO_1024_BIN", 64: "ASPECT_RATIO_512_BIN"}
        names[32] = "ASPECT_RATIO_256_BIN"
        bins: Mapping[str, Any] | None = getattr(module, names.get(self._config(pipe).sample_size, ""), None)
        return bins


class DiT(Family):
    pipelines = ("DiTPipeline",)
    denoisers = ("DiTTransformer2DModel",)
    notes = "class-conditional, square pictures"
    conditioning = "class"
    output_types = frozenset({"pil", "np", "pt"})
    pixel_multiple = 1
    conditional_first = True
    latent_rows = 2

    # ImageNet's classes; the pipeline itself counts on them.
    _null_class = 1000

    def classes(self, pipe: Any) -> int:
        return self._null_class

    def pixels_per_latent(self, pipe: Any) -> int:
        scale: int = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
        return scale

    def text_tokens(self, pipe: Any, call: Mapping[str, Any] = {}) -> int:
        return 0

    def pictures(self, denoiser: nn.Module, rows: int, kwargs: Mapping[str, Any]) -> int:
        labels = kwargs.get("class_labels")
        guided = labels is not None and rows % 2 == 0 and bool((labels[rows // 2 :] == self._null_class).all())
        return rows // 2 if guided else rows

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        return {
            "hidden_states": _picture(config, size),
            "timestep": timestep(),
            "class_labels": torch.zeros(1, dtype=torch.long),
        }


class StableDiffusion3(Family):
    pipelines: tuple[str, ...] = (
        "StableDiffusion3Pipeline",
        "StableDiffusion3Img2ImgPipeline",
        "StableDiffusion3InpaintPipeline",
    )
    denoisers = ("SD3Transformer2DModel",)
    notes = "skip-layer guidance is refused"
    pixel_multiple = 1
    shared_arguments = frozenset({"skip_layers"})
    refused_arguments: Mapping[str, str] = {
        "skip_guidance_layers": "the denoiser is evaluated once more in some steps, which no policy plans"
    }

    def text_tokens(self, pipe: Any, call: Mapping[str, Any] = {}) -> int:
        """CLIP's tokens, to which T5's are appended, zeros where there is no T5."""
        return int(pipe.tokenizer_max_length) + super().text_tokens(pipe, call)

    def image_tokens(self, pipe: Any, size: LatentSize) -> int:
        patch = int(self._config(pipe).patch_size)
        return size.height // patch * (size.width // patch)

    def latent_elements(self, config: Any, size: LatentSize, text_tokens: int) -> int:
        """Inpainting models read mask and masked picture besides."""
        return int(config.out_channels) * size.height * size.width

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        return {
            "hidden_states": _picture(config, size),
            "timestep": timestep(),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.joint_attention_dim),
            "pooled_projections": torch.empty(1, config.pooled_projection_dim),
        }


class StableDiffusion3ControlNet(StableDiffusion3):
    pipelines = ("StableDiffusion3ControlNetPipeline",)
    notes = f"{CONTROLNET_NOTES}; draws from the global generator when it encodes the picture"
    refuses = CONTROLNET_REFUSES
    pixel_multiple = 8


class Sana(Family):
    pipelines = ("SanaPipeline",)
    denoisers = ("SanaTransformer2DModel",)
    notes = "text to image; sizes are binned by aspect ratio unless use_resolution_binning=False"
    shared_arguments = frozenset({"attention_kwargs"})
    pixel_multiple = 32

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        given = {
            "hidden_states": _picture(config, size),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.caption_channels),
            "encoder_attention_mask": torch.ones(1, text_tokens),
            "timestep": timestep(),
        }
        if getattr(config, "guidance_embeds", False):
            given["guidance"] = torch.empty(1)
        return given

    def _bins(self, pipe: Any) -> Mapping[str, Any] | None:
        module = importlib.import_module(type(pipe).__module__)
        names = {128: "ASPECT_RATIO_4096_BIN", 64: "ASPECT_RATIO_2048_BIN", 32: "ASPECT_RATIO_1024_BIN"}
        names[16] = "ASPECT_RATIO_512_BIN"
        bins: Mapping[str, Any] | None = getattr(module, names.get(self._config(pipe).sample_size, ""), None)
        return bins


class AuraFlow(Family):
    pipelines = ("AuraFlowPipeline",)
    denoisers = ("AuraFlowTransformer2DModel",)
    notes = "text to image"
    shared_arguments = frozenset({"attention_kwargs"})
    pixel_multiple = 1

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        return {
            "hidden_states": _picture(config, size),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.joint_attention_dim),
            "timestep": timestep(),
        }


class HunyuanDiT(Family):
    pipelines = ("HunyuanDiTPipeline",)
    denoisers = ("HunyuanDiT2DModel",)
    notes = "text to image; sizes are binned by aspect ratio unless use_resolution_binning=False"
    shared_arguments = frozenset({"image_rotary_emb"})
    rounding = 2

    # The pipeline asks for them by number: BERT's first, T5's behind.
    _bert_tokens, _t5_tokens = _CLIP_TOKENS, 256

    def text_tokens(self, pipe: Any, call: Mapping[str, Any] = {}) -> int:
        return self._bert_tokens + self._t5_tokens

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        model: Any = getattr(denoiser, "_orig_mod", denoiser)
        cosine, _ = kwargs["image_rotary_emb"]
        rotary = _hunyuan_rotary(
            model.inner_dim // model.num_heads, model.config.patch_size, size.height, size.width, cosine.device
        )
        changed: dict[str, Any] = {"image_rotary_emb": tuple(part.to(cosine.dtype) for part in rotary)}
        meta: Tensor | None = kwargs.get("image_meta_size")
        if meta is not None:
            # Original height and width, target height and width, crop.
            height, width = meta[:, 2:3] * (size.height / full.height), meta[:, 3:4] * (size.width / full.width)
            changed["image_meta_size"] = torch.cat([meta[:, :2], height, width, meta[:, 4:]], dim=1)
        return kwargs | changed

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        t5_tokens = config.text_len_t5
        tokens = size.height // config.patch_size * (size.width // config.patch_size)
        rotary = torch.empty(tokens, config.attention_head_dim)
        return {
            "hidden_states": _picture(config, size),
            "timestep": timestep(),
            "encoder_hidden_states": torch.empty(1, text_tokens - t5_tokens, config.cross_attention_dim),
            "text_embedding_mask": torch.ones(1, text_tokens - t5_tokens, dtype=torch.long),
            "encoder_hidden_states_t5": torch.empty(1, t5_tokens, config.cross_attention_dim_t5),
            "text_embedding_mask_t5": torch.ones(1, t5_tokens, dtype=torch.long),
            "image_meta_size": torch.empty(1, 6),
            "style": torch.zeros(1, dtype=torch.long),
            "image_rotary_emb": (rotary, rotary),
        }

    def bins_are_native(self, pipe: Any) -> bool:
        module: Any = importlib.import_module(type(pipe).__module__)
        return self.native_size(pipe)[::-1] in module.SUPPORTED_SHAPE

    def _binned(self, pipe: Any, height: int, width: int) -> tuple[int, int]:
        if not self.bins_are_native(pipe):
            return height, width
        module: Any = importlib.import_module(type(pipe).__module__)
        height, width = height // 16 * 16, width // 16 * 16
        if (height, width) in module.SUPPORTED_SHAPE:
            return height, width
        width, height = module.map_to_standard_shapes(width, height)
        return int(height), int(width)


@functools.lru_cache(maxsize=16)
def _hunyuan_rotary(head_dim: int, patch: int, height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The rotary embedding of latents of this size, as the pipeline makes it before its loop."""
    from diffusers.models.embeddings import get_2d_rotary_pos_embed
    from diffusers.pipelines.hunyuandit.pipeline_hunyuandit import get_resize_crop_region_for_grid

    grid = height // patch, width // patch
    crop = get_resize_crop_region_for_grid(grid, 512 // 8 // patch)
    cosine, sine = get_2d_rotary_pos_embed(head_dim, crop, grid, device=device, output_type="pt")
    return cosine, sine


class Lumina2(Family):
    pipelines = ("Lumina2Pipeline",)
    denoisers = ("Lumina2Transformer2DModel",)
    notes = "text to image; prices are of prompts that fill max_sequence_length, shorter ones cost less"
    branches = "separate"
    shared_arguments = frozenset({"attention_kwargs"})
    rounding = 2
    pixel_multiple = 1

    def image_tokens(self, pipe: Any, size: LatentSize) -> int:
        """The pipeline takes the latents for tokens, and counts their channels."""
        return int(self._config(pipe).in_channels)

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        return {
            "hidden_states": _picture(config, size),
            "timestep": timestep(),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.cap_feat_dim),
            "encoder_attention_mask": _FullMask.of(text_tokens),
        }


class CogView4(Family):
    pipelines = ("CogView4Pipeline",)
    denoisers = ("CogView4Transformer2DModel",)
    notes = "text to image; prices are of prompts that fill max_sequence_length, shorter ones cost less"
    branches = "separate"
    shared_arguments = frozenset({"attention_kwargs"})
    pixel_multiple = 16

    # Prompts are filled up to a multiple of so many tokens.
    _padding = 16

    def text_tokens(self, pipe: Any, call: Mapping[str, Any] = {}) -> int:
        return -(-super().text_tokens(pipe, call) // self._padding) * self._padding

    def image_tokens(self, pipe: Any, size: LatentSize) -> int:
        return int(size.height * size.width // self._config(pipe).patch_size ** 2)

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        """The target size is that of the smaller picture, as for SDXL."""
        target: Tensor = kwargs["target_size"]
        height, width = target[:, :1] * (size.height / full.height), target[:, 1:] * (size.width / full.width)
        return kwargs | {"target_size": torch.cat([height, width], dim=1)}

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        return {
            "hidden_states": _picture(config, size),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.text_embed_dim),
            "timestep": timestep(),
            "original_size": torch.empty(1, 2),
            "target_size": torch.empty(1, 2),
            "crop_coords": torch.empty(1, 2),
        }


class _FullMask(Tensor):
    """A mask of ones whose sum is known on a device without values: the model cuts its prompts by it."""

    @staticmethod
    def of(tokens: int) -> Tensor:
        mask: Tensor = torch.ones(1, tokens, dtype=torch.bool).as_subclass(_FullMask)
        return mask

    def sum(self, *args: Any, **kwargs: Any) -> Tensor:
        return torch.tensor([self.shape[-1]], device="cpu")


class ZImage(Family):
    pipelines = ("ZImagePipeline", "ZImageImg2ImgPipeline", "ZImageInpaintPipeline")
    denoisers = ("ZImageTransformer2DModel",)
    notes = "prices are of prompts that fill max_sequence_length, shorter ones cost less"
    conditional_first = True
    shared_arguments = frozenset({"joint_attention_kwargs"})
    rounding = 2
    pixel_multiple = 1
    guided_above = 0.0

    _native = 1024

    def native_size(self, pipe: Any) -> tuple[int, int]:
        return self._native, self._native

    def spatial(self, latents: Tensor, size: LatentSize) -> Tensor:
        """The denoiser takes every picture as a video of one frame; the scheduler does not."""
        return latents.squeeze(2) if latents.ndim == 5 else latents

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        return {
            "x": [torch.empty(config.in_channels, 1, size.height, size.width)],
            "t": timestep(),
            "cap_feats": [torch.empty(text_tokens, config.cap_feat_dim)],
        }
