"""How each listed pipeline calls its scheduler: which arguments it passes, and what it leaves to the scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

# Read from a scheduler's config by the pipelines that compute ``mu``, with the values that they take where it has none.
SHIFT_KEYS: Mapping[str, float] = {
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "base_shift": 0.5,
    "max_shift": 1.15,
}


@dataclass(frozen=True)
class SchedulerCalls:
    """How a pipeline calls its scheduler. All pass a number of steps or a list of sigmas, output, timestep and sample.

    Attributes:
        sigmas: Whether it spells its evenly spaced sigmas out. FLUX leaves them to schedulers with ``use_flow_sigmas``.
        mu: Whether it passes ``mu``, the shift of a flow's noise levels for the picture's size: never, always, or to
            schedulers with ``use_dynamic_shifting``.
        tells_timesteps: Whether it spells out besides what the denoiser is told, which no shift then moves: whole
            timesteps, of which its sigmas are the shares in the training's.
        max_shift: Of ``mu``, where the scheduler's config has none.
        base_shift: Likewise.
        shift: How ``mu`` grows with the picture: on a line through two numbers of tokens, with their root, or, as
            FLUX.2 has it, with the number of steps too.
        original_steps: Whether it passes ``original_inference_steps``.
        step: What it passes to ``step`` besides, whatever that takes.
        step_if_taken: What it passes to ``step`` where that takes it (``prepare_extra_step_kwargs``).
        unpacks: How many of the values that ``step`` returns it reads.
        scales_noise: Whether it multiplies the noise that it begins with by ``init_noise_sigma``, or has the scheduler
            add it to a picture.
        mixes_noise: Whether it has the scheduler mix noise into a picture as flows do (``scale_noise``).
        scales_input: Whether it has the scheduler scale the denoiser's input (``scale_model_input``).
        sets_begin: Whether it says at which index it begins; others have the scheduler look the first timestep up.
        splits_variance: Whether it takes a learned variance off the denoiser's output.
    """

    sigmas: Literal["never", "always", "unless flow sigmas"] = "never"
    mu: Literal["never", "always", "if dynamic"] = "never"
    tells_timesteps: bool = False
    max_shift: float = SHIFT_KEYS["max_shift"]
    base_shift: float = SHIFT_KEYS["base_shift"]
    shift: Literal["line", "root", "tokens and steps"] = "line"
    original_steps: bool = False
    step: frozenset[str] = frozenset()
    step_if_taken: frozenset[str] = frozenset()
    unpacks: int = 1
    scales_noise: bool = False
    mixes_noise: bool = False
    scales_input: bool = False
    sets_begin: bool = False
    splits_variance: bool = True

    def set_timesteps(self, scheduler: Any, steps: int, image_tokens: int) -> dict[str, Any]:
        """What it passes to ``set_timesteps`` of the scheduler in its place, besides the device.

        Args:
            scheduler: Its config decides some of the arguments.
            steps: The ``num_inference_steps`` of the call.
            image_tokens: See :meth:`autotune.pipelines.families.Family.image_tokens`.
        """
        config = scheduler.config
        spelled = self.sigmas == "always" or (self.sigmas != "never" and not config.get("use_flow_sigmas"))
        arguments: dict[str, Any] = {"num_inference_steps": steps}
        if spelled:
            arguments = self.spelled(config.num_train_timesteps, steps)
        if self.mu == "always" or (self.mu != "never" and config.get("use_dynamic_shifting")):
            arguments["mu"] = self._mu(config, steps, image_tokens)
        if self.original_steps:
            arguments["original_inference_steps"] = None
        return arguments

    @property
    def shifts_by_steps(self) -> bool:
        """Whether ``mu`` depends on the ``num_inference_steps`` of the call."""
        return self.shift == "tokens and steps"

    def _mu(self, config: Mapping[str, Any], steps: int, image_tokens: int) -> float:
        if self.shifts_by_steps:
            from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

            return float(compute_empirical_mu(image_tokens, steps))
        defaults = {**SHIFT_KEYS, "max_shift": self.max_shift, "base_shift": self.base_shift}
        return _SHIFTS[self.shift](defaults | dict(config), image_tokens)

    def spelled(self, trained: int, steps: int) -> dict[str, Any]:
        """The lists that it passes for so many steps, where it spells them out.

        Args:
            trained: The scheduler's ``num_train_timesteps``.
            steps: The ``num_inference_steps`` of the call.
        """
        if not self.tells_timesteps:
            return {"sigmas": np.linspace(1.0, 1 / steps, steps)}
        return told(np.linspace(trained, 1.0, steps).astype(np.int64), trained)

    def step_arguments(self, taken: frozenset[str]) -> frozenset[str]:
        """Names of what it passes to a ``step`` that takes arguments of the names ``taken``."""
        return self.step | (self.step_if_taken & taken)


def told(timesteps: Any, trained: int) -> dict[str, Any]:
    """Both lists of a pipeline that :attr:`tells timesteps <SchedulerCalls.tells_timesteps>`."""
    single = np.asarray(timesteps).astype(np.float32)
    return {"timesteps": single, "sigmas": single / trained}


def shift_of(config: Mapping[str, Any], image_tokens: int) -> float:
    """``mu`` for a picture of so many tokens, on a line through two sizes (``calculate_shift`` of diffusers).

    Example:
        >>> round(shift_of({}, 4096), 2)
        1.15
    """
    few, many, low, high = (config.get(key, default) for key, default in SHIFT_KEYS.items())
    slope = (high - low) / (many - few)
    return float(image_tokens * slope + (low - slope * few))


def root_shift_of(config: Mapping[str, Any], image_tokens: int) -> float:
    """``mu`` for a picture of so many tokens, as CogView4 has it: growing with the side of a square one.

    Example:
        >>> root_shift_of({"base_shift": 0.25, "max_shift": 0.75}, 4096)
        3.25
    """
    few, _, low, high = (config.get(key, default) for key, default in SHIFT_KEYS.items())
    return float((image_tokens / few) ** 0.5 * high + low)


_SHIFTS: Mapping[str, Callable[[Mapping[str, Any], int], float]] = {"line": shift_of, "root": root_shift_of}

_ADAPTING = SchedulerCalls(step_if_taken=frozenset({"eta", "generator"}), scales_noise=True, scales_input=True)
_BEGINNING = replace(_ADAPTING, sets_begin=True)
_DYNAMIC = SchedulerCalls(sigmas="always", mu="always", sets_begin=True)
_BY_STEPS = replace(_DYNAMIC, sigmas="unless flow sigmas", shift="tokens and steps")
# Of a flow from a picture on, and inpainting.
_FROM_PICTURE = replace(_DYNAMIC, scales_noise=True, mixes_noise=True)
_RAW = SchedulerCalls(splits_variance=False)

SCHEDULER_CALLS: Mapping[str, SchedulerCalls] = {
    "StableDiffusionPipeline": _ADAPTING,
    "StableDiffusionImg2ImgPipeline": _BEGINNING,
    "StableDiffusionInpaintPipeline": _BEGINNING,
    "StableDiffusionXLPipeline": _BEGINNING,
    "StableDiffusionXLImg2ImgPipeline": _BEGINNING,
    "StableDiffusionXLInpaintPipeline": _BEGINNING,
    "StableDiffusionControlNetPipeline": _ADAPTING,
    "StableDiffusionXLControlNetPipeline": _ADAPTING,
    "StableDiffusionAdapterPipeline": _ADAPTING,
    "StableDiffusionXLAdapterPipeline": _ADAPTING,
    "StableDiffusionInstructPix2PixPipeline": _ADAPTING,
    "StableDiffusionPAGPipeline": _ADAPTING,
    "StableDiffusionXLPAGPipeline": _ADAPTING,
    # The picture is the second value that the last step returns.
    "LatentConsistencyModelPipeline": replace(_ADAPTING, original_steps=True, unpacks=2, scales_input=False),
    "DDPMPipeline": replace(_RAW, step=frozenset({"generator"})),
    "DDIMPipeline": replace(_RAW, step=frozenset({"eta", "generator", "use_clipped_model_output"})),
    "PixArtAlphaPipeline": _BEGINNING,
    "PixArtSigmaPipeline": _ADAPTING,
    "DiTPipeline": SchedulerCalls(scales_input=True),
    "StableDiffusion3Pipeline": SchedulerCalls(mu="if dynamic", max_shift=1.16),
    "StableDiffusion3Img2ImgPipeline": replace(_FROM_PICTURE, sigmas="never", mu="if dynamic", max_shift=1.16),
    "StableDiffusion3InpaintPipeline": replace(_FROM_PICTURE, sigmas="never", mu="if dynamic", max_shift=1.16),
    "FluxPipeline": replace(_DYNAMIC, sigmas="unless flow sigmas"),
    "StableDiffusion3ControlNetPipeline": SchedulerCalls(),
    "FluxControlNetPipeline": replace(_DYNAMIC, sets_begin=False),
    "FluxImg2ImgPipeline": _FROM_PICTURE,
    "FluxInpaintPipeline": _FROM_PICTURE,
    "FluxFillPipeline": _FROM_PICTURE,
    "FluxKontextPipeline": _DYNAMIC,
    "Flux2Pipeline": _BY_STEPS,
    "Flux2KleinPipeline": _BY_STEPS,
    "ChromaPipeline": _DYNAMIC,
    "SanaPipeline": replace(_ADAPTING, scales_noise=False, scales_input=False),
    "Lumina2Pipeline": _DYNAMIC,
    "AuraFlowPipeline": SchedulerCalls(sets_begin=True),
    "HunyuanDiTPipeline": _ADAPTING,
    "HunyuanImagePipeline": SchedulerCalls(sigmas="always", sets_begin=True),
    "QwenImagePipeline": _DYNAMIC,
    "QwenImageImg2ImgPipeline": _FROM_PICTURE,
    "QwenImageInpaintPipeline": _FROM_PICTURE,
    "QwenImageEditPipeline": _DYNAMIC,
    "ZImagePipeline": _DYNAMIC,
    "ZImageImg2ImgPipeline": _FROM_PICTURE,
    "ZImageInpaintPipeline": _FROM_PICTURE,
    "CogView4Pipeline": SchedulerCalls(
        sigmas="always", mu="always", tells_timesteps=True, shift="root", base_shift=0.25, max_shift=0.75
    ),
    "Kandinsky5T2IPipeline": SchedulerCalls(),
    "Kandinsky5I2IPipeline": SchedulerCalls(),
    "WanPipeline": SchedulerCalls(sets_begin=True),
}


def scheduler_calls(pipe: Any) -> SchedulerCalls | None:
    """How the pipeline calls its scheduler; None where nobody has listed the class whose ``__call__`` it runs."""
    # A pipeline under a policy is of a subclass whose call wraps that of the class.
    call = inspect.unwrap(type(pipe).__call__)
    mro = reversed(type(pipe).__mro__)
    owner = next(parent for parent in mro if "__call__" in vars(parent) and inspect.unwrap(parent.__call__) is call)
    return SCHEDULER_CALLS.get(owner.__name__)
