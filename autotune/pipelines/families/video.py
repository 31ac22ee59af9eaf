"""Pipelines that make videos."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.families.base import Family, LatentSize, timestep


class Wan(Family):
    """``timestep_per_token``: Wan 2.2's 5B model gets a timestep for every token."""

    pipelines = ("WanPipeline",)
    denoisers = ("WanTransformer3DModel",)
    notes = "text to video; refused with a second transformer (Wan 2.2's 14B models)"
    not_tuned = "makes videos, which nothing here judges yet"
    branches = "separate"
    shared_arguments = frozenset({"attention_kwargs"})
    pixel_multiple = 16

    def __init__(self, *, timestep_per_token: bool = False) -> None:
        self._timestep_per_token = timestep_per_token

    @classmethod
    def of(cls, pipe: Any) -> Family:
        return cls(timestep_per_token=bool(pipe.config.get("expand_timesteps", False)))

    def denoiser(self, pipe: Any) -> nn.Module:
        if getattr(pipe, "transformer_2", None) is not None:
            raise InputError(
                f"{type(pipe).__name__} has two transformers that take turns (Wan 2.2's 14B models), which policies do"
                " not support: use a model with one"
            )
        return super().denoiser(pipe)

    def native_size(self, pipe: Any) -> tuple[int, int]:
        parameters = inspect.signature(type(pipe).__call__).parameters
        return int(parameters["height"].default), int(parameters["width"].default)

    def default_frames(self, pipe: Any) -> int | None:
        return int(inspect.signature(type(pipe).__call__).parameters["num_frames"].default)

    def latent_size(
        self, pipe: Any, height: int, width: int, frames: int | None = None, call: Mapping[str, Any] = {}
    ) -> LatentSize:
        _, *patch = self._config(pipe).patch_size
        scale, temporal = pipe.vae_scale_factor_spatial, pipe.vae_scale_factor_temporal
        rows, columns = (pixels // (scale * side) * side for pixels, side in zip((height, width), patch, strict=True))
        count = frames or self.default_frames(pipe) or 1
        if count % temporal != 1:
            count = max(count // temporal * temporal + 1, 1)
        return LatentSize(rows, columns, (count - 1) // temporal + 1)

    def resized_arguments(
        self, denoiser: nn.Module, kwargs: dict[str, Any], size: LatentSize, full: LatentSize
    ) -> dict[str, Any]:
        timesteps: Tensor = kwargs["timestep"]
        if timesteps.ndim < 2:
            return kwargs
        return kwargs | {"timestep": timesteps[:, :1].expand(-1, _tokens(size))}

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        return {
            "hidden_states": torch.empty(1, config.in_channels, size.frames, size.height, size.width),
            "timestep": torch.empty(1, _tokens(size)) if self._timestep_per_token else timestep(),
            "encoder_hidden_states": torch.empty(1, text_tokens, config.text_dim),
        }


def _tokens(size: LatentSize) -> int:
    """How many timesteps the pipeline passes where every token has its own: it counts on patches of 2x2."""
    return size.frames * -(-size.height // 2) * -(-size.width // 2)
