"""Pipelines nobody listed, around a denoiser nobody listed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.pipelines.families.base import Family, LatentSize, padded_tokens, timestep

_TEXT_WIDTHS = (
    "encoder_hid_dim",
    "caption_channels",
    "joint_attention_dim",
    "cross_attention_dim",
    "text_embed_dim",
    "text_dim",
    "cap_feat_dim",
)


# Arguments that go by these names everywhere in diffusers.
_SAMPLES = {"sample", "hidden_states", "x"}
_TIMESTEPS = {"timestep", "timesteps", "t"}
_KNOWN = sorted(
    _SAMPLES | _TIMESTEPS | {"encoder_hidden_states", "encoder_attention_mask", "pooled_projections", "class_labels"}
)


class GenericFamily(Family):
    """Goes by the names of the denoiser's arguments and the pipeline's usual attributes."""

    denoisers = ("any transformer made of blocks",)
    notes = "pipelines with a transformer, batched guidance and (B, C, H, W) latents"
    pixel_multiple = 1

    def __init__(self, parameters: Mapping[str, inspect.Parameter], text_width: int | None) -> None:
        self._parameters = parameters
        self._text_width = text_width

    @classmethod
    def of(cls, pipe: Any) -> Family:
        component: Literal["unet", "transformer"] = (
            "unet" if getattr(pipe, "transformer", None) is None else "transformer"
        )
        denoiser = getattr(pipe, component)
        plain = getattr(denoiser, "_orig_mod", denoiser)
        encoder = getattr(getattr(pipe, "text_encoder", None), "config", None)
        widths = [getattr(plain.config, name, None) for name in _TEXT_WIDTHS]
        widths += [getattr(encoder, name, None) for name in ("hidden_size", "d_model")]
        width = next((width for width in widths if width is not None), None)
        family = cls(inspect.signature(plain.forward).parameters, width)
        family.component = component
        return family

    def text_tokens(self, pipe: Any, call: Mapping[str, Any] = {}) -> int:
        if "encoder_hidden_states" not in self._parameters:
            return 0
        if "max_sequence_length" in call or "max_sequence_length" in inspect.signature(type(pipe).__call__).parameters:
            return super().text_tokens(pipe, call)
        return padded_tokens(pipe, getattr(pipe, "tokenizer", None))

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        """Arguments by their names.

        Raises:
            InputError: an argument without a default is not known by its name, or not how wide it is.
        """
        given: dict[str, Any] = {}
        for name, parameter in self._parameters.items():
            required = parameter.default is parameter.empty and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
            if required or (name == "encoder_hidden_states" and self._text_width is not None):
                given[name] = self._input(name, config, size, text_tokens)
        return given

    def _input(self, name: str, config: Any, size: LatentSize, text_tokens: int) -> Tensor:
        if name in _SAMPLES:
            return torch.empty(1, config.in_channels, size.height, size.width)
        if name in _TIMESTEPS:
            return timestep()
        if name == "encoder_hidden_states" and self._text_width is not None:
            return torch.empty(1, text_tokens, self._text_width)
        if name == "encoder_attention_mask":
            return torch.ones(1, text_tokens)
        if name == "pooled_projections" and hasattr(config, "pooled_projection_dim"):
            return torch.empty(1, config.pooled_projection_dim)
        if name == "class_labels":
            return torch.zeros(1, dtype=torch.long)
        raise InputError(
            f"the denoiser's argument {name!r} has no shape that is known, so its cost cannot be counted; known:"
            f" {', '.join(_KNOWN)}"
        )
