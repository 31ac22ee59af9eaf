"""Pipelines that have a guider weigh the branches of guidance: an object that remembers earlier steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.families.base import Family, LatentSize, timestep


class HunyuanImage(Family):
    """Its texts are padded; behind the prompt comes what it quotes, in letters. The distilled model has no guider."""

    pipelines = ("HunyuanImagePipeline",)
    denoisers = ("HunyuanImageTransformer2DModel",)
    notes = "guided by its guider, of the published kind and in all steps; a call takes no scale"
    branches = "separate"
    shared_arguments = frozenset({"attention_kwargs"})
    guidance_argument = None
    guiders = ("guider", "ocr_guider")
    pixel_multiple = 1

    def __init__(self, *, guided: bool, embedded: bool, quoted_tokens: int) -> None:
        self.guided = guided
        self.embedded_guidance = "distilled_guidance_scale" if embedded else None
        self.variant = (quoted_tokens,)

    @classmethod
    def of(cls, pipe: Any) -> Family:
        denoiser = getattr(pipe, "transformer", None)
        config = getattr(getattr(denoiser, "_orig_mod", denoiser), "config", None)
        return cls(
            guided=_guides(getattr(pipe, "guider", None)),
            embedded=bool(getattr(config, "guidance_embeds", False)),
            quoted_tokens=int(getattr(pipe, "tokenizer_2_max_length", 0)),
        )

    def denoiser(self, pipe: Any) -> nn.Module:
        for name in self.guiders:
            _check_guider(pipe, name)
        return super().denoiser(pipe)

    def text_tokens(self, pipe: Any, call: Mapping[str, Any] = {}) -> int:
        return int(pipe.tokenizer_max_length) + self._quoted(self._config(pipe))

    def inputs(self, config: Any, size: LatentSize, text_tokens: int) -> dict[str, Any]:
        quoted = self._quoted(config)
        given = {
            "hidden_states": torch.empty(1, config.in_channels, size.height, size.width),
            "timestep": timestep(),
            "encoder_hidden_states": torch.empty(1, text_tokens - quoted, config.text_embed_dim),
            "encoder_attention_mask": _Whole.of(text_tokens - quoted),
        }
        if quoted:
            given["encoder_hidden_states_2"] = torch.empty(1, quoted, config.text_embed_2_dim)
            given["encoder_attention_mask_2"] = _Whole.of(quoted)
        if config.guidance_embeds:
            given["guidance"] = torch.empty(1)
        if config.use_meanflow:
            given["timestep_r"] = timestep()
        return given

    def _quoted(self, config: Any) -> int:
        """Tokens of what the prompt quotes; a denoiser that does not read it is none given."""
        (tokens,) = self.variant
        return 0 if config.text_embed_2_dim is None else tokens


class _Whole(Tensor):
    """A mask of ones of which that is known on a device without values: the model sorts its tokens by it."""

    chooses = True

    @staticmethod
    def of(tokens: int) -> Tensor:
        mask: Tensor = torch.ones(1, tokens, dtype=torch.bool).as_subclass(_Whole)
        return mask

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__getitem__ and isinstance(args[1], _Whole):
            rows = args[0].as_subclass(Tensor)
            return rows if args[1].chooses else rows[:0]
        result: Any = super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call]
        if func in (Tensor.__invert__, Tensor.bitwise_not, torch.bitwise_not):
            result.chooses = not args[0].chooses
        return result


def _guides(guider: Any) -> bool:
    """Whether a guider of the published kind has both branches computed."""
    if guider is None or not guider._enabled:
        return False
    return not math.isclose(guider.guidance_scale, 0.0 if guider.use_original_formulation else 1.0)


def _check_guider(pipe: Any, name: str) -> None:
    """Refuse a guider that decides otherwise than the published one how many branches a step computes.

    Raises:
        InputError: it is of another class, or guides some of the steps alone.
    """
    from diffusers.guiders import AdaptiveProjectedMixGuidance

    guider = getattr(pipe, name, None)
    if guider is None:
        return
    if type(guider) is not AdaptiveProjectedMixGuidance:
        raise InputError(
            f"the {name} of this {type(pipe).__name__} is a {type(guider).__name__}, and no policy knows which branches"
            " it computes: use an AdaptiveProjectedMixGuidance"
        )
    if (guider._start, guider._stop) != (0.0, 1.0):
        raise InputError(
            f"the {name} of this {type(pipe).__name__} guides from {guider._start:g} to {guider._stop:g} of the steps"
            " alone, which is the policy's to say: make it with start=0.0 and stop=1.0"
        )
