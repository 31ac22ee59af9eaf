"""How to build and to call the tiny pipeline of one family, and the list of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from diffusers.utils.pil_utils import numpy_to_pil
from torch import nn

# Seven known words each, so that all fill the same number of tokens and the denoiser sees no padding.
PROMPTS = ("red cat on blue chair near tree", "green dog in black house under moon")
NEGATIVE = "blurry dark ugly noisy broken plain flat"
LONG_NEGATIVE = f"{NEGATIVE} red dog on moon"
CLIP_TOKENS = 16
WORD_TOKENS = 8


@dataclass(frozen=True)
class TinyFamily:
    """How to build and to call the tiny pipeline of one family.

    Attributes:
        pipeline: Its class.
        make: Builds the pipeline; takes ``scheduler=`` in place of the family's own.
        denoiser: The pipeline's attribute that holds the denoiser.
        scheduler: Whether the family adds noise by a diffusion or by a straight (flow) path.
        size: Height and width in pixels; latents are 16 x 16, of DDPM and DDIM the pixels themselves.
        other_size: Another size that the pipeline takes, None where the size is fixed by the config.
        guidance: Both branches in one denoiser call, in two, or no guidance at all.
        conditional_first: Which branch comes first among the rows or calls of a guided step.
        text_tokens: How many tokens of text reach the denoiser, 0 where it reads no text.
        tokens: Number and width of those that a denoiser of packed latents is given: patches of 2 x 2 in a sequence.
        frames: Frames of a video, None for pictures.
        channels_last: Whether latents have height and width before their channels.
        strength: Of image-to-image pipelines: the fraction of the steps that is executed.
        scale: The call's argument for the guidance scale, and its values with and without guidance.
        guider: Whether that scale is no argument but the guider's, which :meth:`told` sets.
        text: What the call is told to depict by: a prompt, a class, or nothing.
        inpaint: Whether a mask says where to paint.
        sized: Whether the call takes a size; None where only a picture to begin with, or the config, sets it.
        branches: Of a guided step.
        perturbed: Whether a call has one more row a picture, after the others, guided or not.
        negative: The negative prompt, where guidance needs one or where it must fill as many tokens.
        pictures: Arguments that take a picture to follow for each that is made.
        pillow: Whether these take Pillow's pictures alone.
        ip_adapters: How many IP-Adapters the denoiser has, each of which is given a picture for the whole call.
        refuses: Fields of a policy that the pipeline cannot follow.
        extra: Further arguments of every call.
    """

    name: str
    pipeline: str
    make: Callable[..., Any]
    denoiser: str = "transformer"
    scheduler: Literal["diffusion", "flow"] = "flow"
    size: tuple[int, int] = (32, 32)
    other_size: tuple[int, int] | None = (32, 64)
    guidance: Literal["batched", "separate", "none"] = "batched"
    conditional_first: bool = False
    text_tokens: int = WORD_TOKENS
    tokens: tuple[int, int] = (64, 16)
    frames: int | None = None
    channels_last: bool = False
    strength: float | None = None
    scale: tuple[str, float, float] = ("guidance_scale", 4.0, 1.0)
    guider: bool = False
    text: Literal["prompt", "class", "none"] = "prompt"
    negative: str | None = None
    ip_adapters: int = 0
    refuses: frozenset[str] = frozenset()
    pictures: tuple[str, ...] = ()
    pillow: bool = False
    inpaint: bool = False
    sized: bool | None = None
    branches: int = 2
    perturbed: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def guided(self) -> bool:
        """Whether the family can run with guidance."""
        return self.guidance != "none"

    @property
    def takes_size(self) -> bool:
        """Whether a call is told the size of its pictures."""
        if self.sized is not None:
            return self.sized
        return self.other_size is not None and (self.strength is None or self.inpaint)

    def executed_steps(self, steps: int = 4) -> int:
        """How many of ``num_inference_steps`` the pipeline executes."""
        if self.strength is None:
            return steps
        # Pipelines of diffusions leave out a step that strength halves, those of flows execute it.
        return int(steps * self.strength) if self.scheduler == "diffusion" else steps - int(steps * (1 - self.strength))

    def arguments(
        self,
        batch: int = 1,
        height: int | None = None,
        width: int | None = None,
        guidance: bool = True,
        seed: int = 0,
        steps: int = 4,
        **overrides: Any,
    ) -> dict[str, Any]:
        """Fresh arguments of one call: pipelines change lists and generators that they are given."""
        size = (height or self.size[0], width or self.size[1])
        call: dict[str, Any] = {
            "num_inference_steps": steps,
            "generator": torch.Generator().manual_seed(seed),
            "output_type": "latent",
            **self.extra,
        }
        if self.text == "prompt":
            call["prompt"] = [PROMPTS[index % len(PROMPTS)] for index in range(batch)]
        elif self.text == "class":
            call["class_labels"] = [7 + 11 * index for index in range(batch)]
        else:
            call["batch_size"] = batch
        if self.guided:
            name, guided, unguided = self.scale
            call[name] = guided if guidance else unguided
            if self.negative is not None and guidance:
                call["negative_prompt"] = [self.negative] * batch
        if self.strength is not None:
            call["strength"] = self.strength
            call["image"] = _picture(batch, *size)
        call |= {name: _picture(batch, *size, pillow=self.pillow) for name in self.pictures}
        if self.ip_adapters:
            call["ip_adapter_image"] = list(_picture(self.ip_adapters, 8, 8)[:, None])
        if self.inpaint:
            call["mask_image"] = _mask(batch, *size)
        if self.other_size is None and size != self.size:
            raise ValueError(f"{self.name} has one size, {self.size}")
        if self.takes_size:
            call["height"], call["width"] = size
        if self.frames is not None:
            call["num_frames"] = self.frames
        return call | overrides

    def told(self, pipe: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What the call itself takes of its arguments, once the guider knows the scale among them."""
        if self.guider:
            setattr(pipe.guider, self.scale[0], arguments[self.scale[0]])
        return {name: value for name, value in arguments.items() if not self.guider or name != self.scale[0]}

    def run(self, pipe: Any, *, by: Callable[..., Any] | None = None, **arguments: Any) -> torch.Tensor:
        """The latents, or the pixels where a pipeline returns no latents, of a call, which another may make."""
        result = returned((by or pipe)(**self.told(pipe, arguments)))
        return torch.from_numpy(result) if isinstance(result, np.ndarray) else result


def returned(output: Any) -> Any:
    """The pictures, or frames, in what a pipeline returns."""
    return next(getattr(output, name) for name in ("frames", "images", "image") if hasattr(output, name))


FAMILIES: dict[str, TinyFamily] = {}


def register(name: str, **fields: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """Enter the decorated builder, a function without arguments, among the families."""

    def enter(build: Callable[[], Any]) -> Callable[[], Any]:
        def make(scheduler: Any = None) -> Any:
            with _seeded():
                pipe = build()
                _prepare(getattr(pipe, fields.get("denoiser", "transformer")))
            if scheduler is not None:
                pipe.register_modules(scheduler=scheduler)
            for component in pipe.components.values():
                if isinstance(component, nn.Module):
                    component.eval().requires_grad_(False)
            pipe.set_progress_bar_config(disable=True)
            return pipe

        FAMILIES[name] = TinyFamily(name, build.__annotations__["return"], make, **fields)
        return build

    return enter


@contextmanager
def _seeded(seed: int = 0) -> Iterator[None]:
    """The same random numbers every time, and the caller's generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _prepare(denoiser: nn.Module) -> None:
    """Weights with which every block has an effect.

    What a fresh model leaves at zero is drawn anew, and PyTorch's default weights, which shrink the
    variance of what they are given to a third, are made to keep it.
    """
    with torch.no_grad():
        for parameter in denoiser.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        for module in denoiser.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
                module.weight.mul_(3**0.5)


def _picture(batch: int, height: int, width: int, *, pillow: bool = False) -> Any:
    generator = torch.Generator().manual_seed(1)
    pictures = torch.rand(batch, 3, height, width, generator=generator)
    return numpy_to_pil(pictures.permute(0, 2, 3, 1).numpy()) if pillow else pictures


def _mask(batch: int, height: int, width: int) -> torch.Tensor:
    """1 where the picture is to be painted: its right half."""
    mask = torch.zeros(batch, 1, height, width)
    mask[..., width // 2 :] = 1
    return mask
