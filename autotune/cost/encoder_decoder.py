"""FLOPs of what surrounds the denoising loop, text encoders and the decoder, counted without weights."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from autotune.core.errors import reason_of
from autotune.cost.flops import count_call
from autotune.cost.work import Work
from autotune.pipelines.families import LatentSize, family_of
from autotune.runtime.apply import plain_scheduler
from autotune.runtime.models import recommended, root_of

_ENCODER = "text_encoder"
# Longer than any pipeline lets a prompt be, one token a word.
_LONGEST = "a " * 2048
_GUIDANCE_SCALE = 4.0
_MASK = "mask_image"


@dataclass(frozen=True)
class EncoderDecoderCost:
    """Arithmetic of one pipeline call for one picture outside the denoising loop.

    FLOPs are two per multiply-add, attention products included.

    Attributes:
        text_encoders: by the pipeline's names (``text_encoder_2``), of all passes over the prompt and, under
            guidance, the negative prompt; empty where the pipeline has none.
        vae_decoder: of the autoencoder's decoder; None where the pipeline has none, or it is not counted.
        not_counted: what else a call computes, by name, and why it is not counted.
    """

    text_encoders: Mapping[str, Work] = field(default_factory=dict)
    vae_decoder: Work | None = None
    not_counted: tuple[tuple[str, str], ...] = ()

    @property
    def total(self) -> Work:
        """Of everything that is counted."""
        return sum(self.text_encoders.values(), self.vae_decoder or Work(0, 0))


def encoder_decoder_cost(
    pipe: Any,
    height: int | None = None,
    width: int | None = None,
    *,
    frames: int | None = None,
    guided: bool | None = None,
    prompt: str | None = None,
    negative_prompt: str | None = None,
    call: Mapping[str, Any] | None = None,
) -> EncoderDecoderCost:
    """Count text encoders and decoder for one picture, without running the pipeline or reading its weights.

    Text encoders get what the pipeline itself gives them: a copy of it, whose encoders are weightless, is called and
    stopped before its first step. Most pipelines pad prompts to a fixed number of tokens, so the prompt does not
    matter. Qwen-Image does not pad: by default it is priced with the longest prompt it lets through, and ``prompt``
    gives the count for another. Qwen-Image-Edit lets a prompt of any length through, so give it one.

    The decoder is counted as it decodes in one piece: tiling and slicing, when enabled, add overlaps.

    Args:
        pipe: the pipeline; only its configs and tokenizers are read, so its weights may be on any device, or absent.
        height, width: of the picture, in pixels; the model's native size by default.
        frames: of a video; the pipeline's default by default.
        guided: whether the call uses classifier-free guidance; None is what the pipeline does by default. Guidance
            adds the pass over the negative prompt, except where the pipeline puts zeros for one that is not given
            (SDXL), and where the guidance scale is an input of the denoiser (LCM, FLUX.1-dev).
        prompt: the prompt; the longest that the pipeline lets through by default.
        negative_prompt: the negative prompt; none by default, or ``prompt`` where there is no guidance without one
            (``true_cfg_scale`` of FLUX and Qwen-Image).
        call: further arguments of the pipeline's call (``max_sequence_length``); what the model recommends by default.

    Example:
        >>> around = encoder_decoder_cost(autotune.demo_pipeline())
        >>> {name: work.flops for name, work in around.text_encoders.items()}
        {'text_encoder': 38535168}
    """
    family = family_of(pipe)
    call = recommended(pipe).call if call is None else call
    native = family.native_size(pipe)
    height, width = height or native[0], width or native[1]
    frames = frames or family.default_frames(pipe)
    arguments = _arguments(pipe, height, width, frames, family.guided if guided is None else guided)
    arguments |= _texts(prompt, negative_prompt, bool(arguments.get("true_cfg_scale"))) | dict(call)
    with _quiet():
        text_encoders, without_text = _text_encoders(pipe, arguments)
        decoder, without_decoder = _decoder(pipe, family.latent_size(pipe, height, width, frames, call))
    return EncoderDecoderCost(text_encoders, decoder, (*without_text, *without_decoder, *_left_out(pipe)))


_NotCounted = tuple[tuple[str, str], ...]


def _arguments(pipe: Any, height: int, width: int, frames: int | None, guided: bool) -> dict[str, Any]:
    """Arguments of a call, as far as the pipeline takes them."""
    scale = _GUIDANCE_SCALE if guided else 0.0
    known: dict[str, Any] = {
        "height": height,
        "width": width,
        "num_frames": frames,
        "num_inference_steps": 2,
        "output_type": "latent",
    }
    takes = inspect.signature(type(pipe).__call__).parameters
    # Where there are two, the other is an input of the denoiser.
    known["true_cfg_scale" if "true_cfg_scale" in takes else "guidance_scale"] = scale
    for name in family_of(pipe).call_signature(pipe).pictures:
        known[name] = _black(height, width, "L" if name == _MASK else "RGB")
    return {name: value for name, value in known.items() if name in takes}


def _black(height: int, width: int, mode: str) -> Any:
    """As Pillow's picture, which every pipeline takes."""
    from PIL import Image

    return Image.new(mode, (width, height))


def _texts(prompt: str | None, negative_prompt: str | None, negative_needed: bool) -> dict[str, Any]:
    prompt = _LONGEST if prompt is None else prompt
    if negative_prompt is None and negative_needed:
        negative_prompt = prompt
    # As a list of one, which every pipeline takes.
    return {"prompt": [prompt]} | ({} if negative_prompt is None else {"negative_prompt": [negative_prompt]})


class _PromptEncodedError(Exception):
    """The pipeline has done what comes before its denoising steps."""


def _text_encoders(pipe: Any, arguments: Mapping[str, Any]) -> tuple[dict[str, Work], _NotCounted]:
    encoders = {
        name: root_of(module)
        for name, module in pipe.components.items()
        if name.startswith(_ENCODER) and isinstance(module, nn.Module)
    }
    if not encoders:
        return {}, ()
    works: dict[str, Work] = {}

    def add(name: str, work: Work) -> None:
        works[name] = works.get(name, Work(0, 0)) + work

    # Not one of them is known when one fails: the pipeline stops there.
    try:
        probe = _probe(pipe, {name: _StandIn(_skeleton(module), name, add) for name, module in encoders.items()})
        probe(**arguments)
    except _PromptEncodedError:
        idle = tuple((name, "the pipeline's call does not reach it") for name in encoders if name not in works)
        return works, idle
    except Exception as error:  # Pipelines and models nobody has listed may fail in any way on what has no values.
        reason = f"the pipeline's prompt encoding cannot be followed ({reason_of(error)})"
    else:
        reason = "the pipeline sets its timesteps before it encodes the prompt, or never"
    return {}, tuple((name, reason) for name in encoders)


def _probe(pipe: Any, encoders: Mapping[str, nn.Module]) -> Any:
    """A copy of the pipeline that encodes prompts on the CPU, with other encoders, and stops at its timesteps."""
    probe = copy.copy(pipe)
    probe.__class__ = type(type(pipe).__name__, (type(pipe),), {"_execution_device": torch.device("cpu")})
    # What a policy, or somebody else, has put in place of the class's methods acts on the pipeline itself.
    for name in [name for name, value in vars(pipe).items() if callable(value) and hasattr(type(pipe), name)]:
        del vars(probe)[name]
    scheduler = copy.copy(plain_scheduler(pipe))

    # Pipelines look at the signature to see whether they may pass their own timesteps.
    @functools.wraps(scheduler.set_timesteps)
    def stop(*args: Any, **kwargs: Any) -> None:
        raise _PromptEncodedError

    scheduler.set_timesteps = stop
    stopping: dict[str, Any] = {"scheduler": scheduler}
    if getattr(pipe, "vae", None) is not None:
        # Some encode a picture before they set timesteps, but none before the prompt.
        stopping["vae"] = copy.copy(pipe.vae)
        stopping["vae"].encode = stop
    # Past __setattr__, which records components in the config.
    vars(probe).update(encoders, **stopping)
    return probe


class _StandIn(nn.Module):
    """A weightless text encoder that reports the work of every call, and answers with zeros on the CPU."""

    device = torch.device("cpu")

    def __init__(self, skeleton: nn.Module, name: str, report: Callable[[str, Work], None]) -> None:
        super().__init__()
        self.skeleton, self.name, self.report = skeleton, name, report
        self.signature = inspect.signature(skeleton.forward)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("skeleton"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        bound = self.signature.bind(*args, **kwargs)
        # Masks hide tokens and save no work, and models look into them for shortcuts.
        bound.arguments.pop("attention_mask", None)
        # Without a cache, models read from the positions whether several texts are packed into one.
        bound.arguments.pop("use_cache", None)
        self._see(bound.arguments.pop("pixel_values", None), bound.arguments.pop("image_grid_thw", None))
        args, kwargs = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), (bound.args, bound.kwargs))
        # For position ids and the like that the model makes itself.
        with torch.device("meta"):
            output, work = count_call(lambda: self.skeleton(*args, **kwargs))
        self.report(self.name, work)
        return tree_map_only(Tensor, _zeros_like, output)

    def _see(self, patches: Tensor | None, grids: Tensor | None) -> None:
        """Report the work on a picture in the prompt, apart, for its features go to tokens by the tokens' values.

        These tokens are among those of the prompt, and cost the same whatever they hold.

        Args:
            patches: of all pictures, in one row.
            grids: numbers of them, of which models make sizes.
        """
        if patches is None:
            return
        features: Any = self.skeleton.get_image_features
        with _MetaWins():  # type: ignore[no-untyped-call]
            _, work = count_call(lambda: features(patches.to("meta"), grids))
        self.report(self.name, work)


class _MetaWins(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Lets tensors with values, which models make of sizes, meet those without: what comes of both has none."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = args, kwargs or {}
        if any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves(given)):
            given = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), given)
        return func(*given[0], **given[1])


def _zeros_like(tensor: Tensor) -> Tensor:
    """One zero in the shape of a tensor, which takes no memory."""
    return torch.zeros((), dtype=tensor.dtype, device="cpu").expand(tensor.shape)


def _skeleton(module: nn.Module) -> nn.Module:
    """A copy on the ``meta`` device, made of the module's config."""
    kind: Any = type(module)
    config: Any = module.config
    with torch.device("meta"):
        # Attention written out gives the count of every fused kernel, and reads no values.
        made = (
            kind._from_config(copy.deepcopy(config), attn_implementation="eager")
            if hasattr(kind, "_from_config")
            else kind.from_config(config)
        )
    skeleton: nn.Module = made.eval()
    return skeleton


def _decoder(pipe: Any, size: LatentSize) -> tuple[Work | None, _NotCounted]:
    vae = getattr(pipe, "vae", None)
    if vae is None:
        return None, ()
    try:
        skeleton: Any = _skeleton(root_of(vae))
        channels = getattr(skeleton.config, "latent_channels", None) or skeleton.config.z_dim
        is_video = any(isinstance(module, nn.Conv3d) for module in skeleton.modules())
        shape = (1, channels, *((size.frames,) if is_video else ()), size.height, size.width)
        with torch.device("meta"):
            _, work = count_call(lambda: skeleton.decode(torch.empty(shape)))
    except Exception as error:  # As above: of autoencoders nobody has listed.
        return None, (("vae", f"{type(vae).__name__} cannot be counted without weights ({reason_of(error)})"),)
    return work, ()


def _left_out(pipe: Any) -> _NotCounted:
    """What else pipelines compute besides, in words."""
    left_out = []
    if getattr(pipe, "safety_checker", None) is not None:
        left_out.append(("safety_checker", "it judges finished pictures; pass safety_checker=None to leave it out"))
    if getattr(pipe, "vae", None) is not None and "strength" in inspect.signature(type(pipe).__call__).parameters:
        left_out.append(("vae encoder", "how often it encodes the given picture depends on the call"))
    return tuple(left_out)


@contextmanager
def _quiet() -> Iterator[None]:
    """No remarks that the longest prompt is too long, or on configs that were remarked on when the model was made."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    before = [(logger, logger.get_verbosity()) for logger in (diffusers_logging, transformers_logging)]
    for logger, _ in before:
        logger.set_verbosity_error()
    try:
        yield
    finally:
        for logger, verbosity in before:
            logger.set_verbosity(verbosity)
