"""Kandinsky 5: latents with their channels last, and sizes from a list that the pipeline holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autotune.pipelines.families.base import Family, LatentSize, timestep

# Of which the pipeline counts positions, whatever the denoiser's config says.
_PATCH = 2


class Kandinsky5(Family):
    """Latents are (B, F, H, W, C), pictures of one frame."""

    pipelines: tuple[str, ...] = ("Kandinsky5T2IPipeline",)
    denoisers = ("Kandinsky5Transformer3DModel",)
    notes = (
        "text to image; sizes are those of pipe.resolutions, the nearest by aspect ratio; prices are of prompts that"
        " fill max_sequence_length, shorter ones cost less"
    )
    branches = "separate"
    shared_arguments = frozenset({"visual_rope_pos", "text_rope_pos", "scale_factor", "sparse_params"})
    pixel_multiple = 16

    def native_size(self, pipe: Any) -> tuple[int, int]:
        """The first of the pipeline's sizes."""
        width, height = pipe.resolutions[0]
        return int(height), int(width)

    def pixels_per_latent(self, pipe: Any) -> int:
        return int(pipe.vae_scale_factor_spatial)

    def spatial(self, latents: Tensor, size: LatentSize) -> Tensor:
        return latents.permute(0, 4, 1, 2, 3)

    def packed(self, latents: Tensor, size: LatentSize) -> Tensor:
        return latents.permute(0, 2, 3, 4, 1)

    def size_of(self, sample: Any, kwargs: Mapping[str, Any]) -> LatentSize:
        frames, height, width, _ = sample[0].shape
        return LatentSize(int(height), int(width), int(frames))

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        """Positions are counted from 0, so those of a smaller picture are the first of the full one's."""
        frames, rows, columns = kwargs["visual_rope_pos"]
        return kwargs | {"visual_rope_pos": [frames, rows[: size.height // _PATCH], columns[: size.width // _PATCH]]}

    def latent_elements(self, config: Any, size: LatentSize, text_tokens: int) -> int:
        return int(config.in_visual_dim) * size.frames * size.height * size.width

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        # Behind the latents those of the given picture, and a mask.
        channels = 2 * config.in_visual_dim + 1 if config.visual_cond else config.in_visual_dim
        return {
            "hidden_states": torch.empty(1, size.frames, size.height, size.width, channels),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.in_text_dim),
            "timestep": timestep(),
            "pooled_projections": torch.empty(1, config.in_text_dim2),
            "visual_rope_pos": [
                torch.arange(side) for side in (size.frames, size.height // _PATCH, size.width // _PATCH)
            ],
            "text_rope_pos": torch.arange(text_tokens),
        }

    def _binned(self, pipe: Any, height: int, width: int) -> tuple[int, int]:
        sizes = pipe.resolutions
        if (width, height) not in sizes:
            width, height = min(sizes, key=lambda size: abs(size[0] / size[1] - width / height))
        return int(height), int(width)


class Kandinsky5FromPicture(Kandinsky5):
    """Text encoder and denoiser read the given picture besides."""

    pipelines = ("Kandinsky5I2IPipeline",)
    notes = (
        "follows a picture, which must be Pillow's; no low resolution; sizes are those of pipe.resolutions, the nearest"
        " by aspect ratio; prices are of prompts and pictures that fill max_sequence_length, others cost less"
    )
    refuses = {"resolution": "its denoiser reads the given picture besides, at full size"}
