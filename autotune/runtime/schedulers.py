"""What the runtime knows of diffusers' schedulers: noise levels, calls a step, predicted x0 and history.

A *call* is one evaluation of the denoiser followed by one ``scheduler.step``; it is the index into
``scheduler.timesteps``. Everything that differs between classes stands in one table, ``SOLVERS``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any

from torch import Tensor

from autotune.core.errors import InputError
from autotune.runtime.noise_levels import (
    FLOW,
    OUTPUT,
    X0,
    Level,
    alphas,
    alphas_by_stride,
    flow,
    scaled_sigmas,
    sigmas,
    sigmas_and_midpoints,
)

Resample = Callable[[Tensor], Tensor]

_MAX_REASON = 200


def check_scheduler(scheduler: Any) -> None:
    """Refuse a scheduler whose steps the runtime does not know exactly.

    Raises:
        InputError: the class, or its prediction type, is not supported.
    """
    solver = kind_of(scheduler)
    name, kind = type(scheduler).__name__, prediction_type(scheduler)
    if kind not in solver.predictions:
        raise InputError(
            f"{name} with prediction_type {kind!r} is not supported; {name} supports {', '.join(solver.predictions)}"
        )
    if "use_flow_sigmas" in parameters(type(scheduler)) and setting(scheduler, "use_flow_sigmas") != (kind == FLOW):
        raise InputError(
            f"{name} with prediction_type {kind!r} and use_flow_sigmas={setting(scheduler, 'use_flow_sigmas')} is"
            f" not supported: use_flow_sigmas=True goes with prediction_type {FLOW!r}, False with the others"
        )
    if setting(scheduler, "invert_sigmas"):
        raise InputError(f"{name} with invert_sigmas=True is not supported: set it to False")


def calls_per_step(scheduler: Any, steps: int, timesteps: int) -> tuple[int, ...]:
    """How many calls each of ``steps`` steps takes, given ``len(scheduler.timesteps)`` after ``set_timesteps``.

    Raises:
        InputError: the scheduler made another number of timesteps than its class makes for so many steps.
    """
    calls = kind_of(scheduler).calls(scheduler, steps)
    if sum(calls) != timesteps:
        raise InputError(
            f"{type(scheduler).__name__} makes {timesteps} timesteps for {steps} steps where {sum(calls)} are expected:"
            " use another number of steps or another scheduler"
        )
    return calls


def prediction_type(scheduler: Any) -> str:
    """What the denoiser predicts: ``epsilon``, ``v_prediction``, ``sample`` or ``flow_prediction``."""
    return str(setting(scheduler, "prediction_type", FLOW))


def is_flow(scheduler: Any) -> bool:
    """Whether the denoiser predicts the velocity of a flow, which no diffusion solver understands."""
    return prediction_type(scheduler) == FLOW


def shifts_dynamically(scheduler: Any) -> bool:
    """Whether a flow's noise levels are shifted for the picture's size, by ``mu``."""
    return bool(setting(scheduler, "use_dynamic_shifting"))


def scales_noise(scheduler: Any) -> bool:
    """Whether the pipeline must scale the noise it begins with and the denoiser's input (variance exploding)."""
    return kind_of(scheduler).scales_noise


def returns_x0(scheduler: Any) -> bool:
    """Whether ``step`` returns the predicted clean latents as a second value."""
    return kind_of(scheduler).returns_x0


def level(scheduler: Any, call: int) -> Level:
    """``(signal, noise)``: the sample entering ``call`` is ``signal * x0 + noise * n`` with unit noise ``n``.

    ``call == len(scheduler.timesteps)`` is the end. Where a solver lands beside the next timestep (DDIM
    with ``linspace`` or ``trailing`` spacing), the level is the one the denoiser is told.
    """
    return kind_of(scheduler).level(scheduler, call)


def predict_x0(scheduler: Any, call: int, output: Tensor, sample: Tensor) -> Tensor:
    """The clean latents that the denoiser's output at ``call`` implies, as the scheduler sees them.

    Ho et al. 2020, eq. 15; Salimans & Ho 2022, appendix D. Clipped or thresholded where the scheduler
    does so. Of an output with learned variance the first half of the channels counts.

    Args:
        output: the denoiser's output after guidance.
        sample: the latents that ``scheduler.step`` is given with it, in the pipeline's form.
    """
    if output.shape[1] == 2 * sample.shape[1]:
        output = output[:, : sample.shape[1]]
    x0 = X0[prediction_type(scheduler)](*level(scheduler, call), output.float(), sample.float())
    if setting(scheduler, "thresholding"):
        x0 = scheduler._threshold_sample(x0)
    elif setting(scheduler, "clip_sample"):
        bound = scheduler.config.clip_sample_range
        x0 = x0.clamp(-bound, bound)
    return x0.to(sample.dtype)


def restart_history(scheduler: Any, call: int, upsample: Resample, x0: Tensor, noise: Tensor) -> None:
    """Bring what the scheduler keeps of earlier calls to the new size, after ``call``, the last of its step.

    Kept predictions of x0 are resampled, which preserves how they changed. Kept noise or raw outputs
    are filled as if the trajectory had been the straight line through ``x0`` and ``noise``.

    Args:
        upsample: takes clean latents of the old size, in the pipeline's form, to the new size.
        x0: predicted clean latents of the new size, in the pipeline's form.
        noise: the unit noise in the new latents.
    """
    kind_of(scheduler).restart(scheduler, call, upsample, x0, noise)


def sigma_argument(scheduler: Any, sigmas: Sequence[float]) -> list[float]:
    """``sigmas``, one a step, as ``set_timesteps`` wants them: some classes want the final zero too."""
    return [*sigmas, 0.0] if kind_of(scheduler).lists_last_sigma else list(sigmas)


def reason_of(error: Exception) -> str:
    """What diffusers raised, as part of a sentence: on one line, short and printable."""
    text = " ".join(str(error).split())[:_MAX_REASON] or type(error).__name__
    return text if text.isprintable() else ascii(text)


def kind_of(scheduler: Any) -> SchedulerKind:
    name = type(scheduler).__name__
    if name not in SOLVERS:
        raise InputError(f"{name} is not supported; supported schedulers: {', '.join(sorted(SOLVERS))}")
    return SOLVERS[name]


def parameters(cls: Any) -> Mapping[str, inspect.Parameter]:
    """The settings of a scheduler's class."""
    return {key: p for key, p in inspect.signature(cls.__init__).parameters.items() if key != "self"}


def setting(scheduler: Any, key: str, default: Any = None) -> Any:
    """A setting the class knows, else ``default``.

    Configs carry the keys of classes they once belonged to: a PNDM made from a DDIM config lists
    ``clip_sample`` but never clips.
    """
    return scheduler.config[key] if key in parameters(type(scheduler)) else default


# --- calls a step -------------------------------------------------------------------------------------


def _one_call(scheduler: Any, steps: int) -> tuple[int, ...]:
    return (1,) * steps


def _two_calls(scheduler: Any, steps: int) -> tuple[int, ...]:
    """A second-order solver ends with a step of first order."""
    return (2,) * (steps - 1) + (1,)


def _pndm_calls(scheduler: Any, steps: int) -> tuple[int, ...]:
    """Three steps of Runge-Kutta at first, or the first step twice instead (Liu et al. 2022)."""
    if not scheduler.config.skip_prk_steps:
        return (4, 4, 4) + (1,) * (steps - 3)
    return (2,) * min(steps - 1, 1) + (1,) * max(steps - 1, 1)


# --- history ------------------------------------------------------------------------------------------


def _no_history(scheduler: Any, call: int, upsample: Resample, x0: Tensor, noise: Tensor) -> None:
    """Nothing outlives a step."""


def _restart_lms(scheduler: Any, call: int, upsample: Resample, x0: Tensor, noise: Tensor) -> None:
    # d(x0 + sigma * n) / d(sigma) is the noise, whatever the denoiser predicts.
    scheduler.derivatives = [noise.to(kept.dtype) for kept in scheduler.derivatives]


def _restart_pndm(scheduler: Any, call: int, upsample: Resample, x0: Tensor, noise: Tensor) -> None:
    calls = calls_per_step(scheduler, scheduler.num_inference_steps, len(scheduler.timesteps))
    # Image-to-image begins in the middle of the timesteps; the scheduler counts from there.
    begin = call + 1 - scheduler.counter
    # The first output of every step is kept, the last few of them.
    first = [begin + start for start in accumulate((0, *calls[:-1])) if begin + start <= call]
    output = OUTPUT[prediction_type(scheduler)]
    kept = zip(scheduler.ets, first[len(first) - len(scheduler.ets) :], strict=True)
    scheduler.ets = [output(*level(scheduler, at), x0, noise).to(old.dtype) for old, at in kept]
    scheduler.cur_sample = None  # read within a step only


def _restart_outputs(scheduler: Any, call: int, upsample: Resample, x0: Tensor, noise: Tensor) -> None:
    def renew(kept: Tensor) -> Tensor:
        return (upsample(kept) if _keeps_x0(scheduler) else noise).to(kept.dtype)

    scheduler.model_outputs = [None if kept is None else renew(kept) for kept in scheduler.model_outputs]


def _restart_unipc(scheduler: Any, call: int, upsample: Resample, x0: Tensor, noise: Tensor) -> None:
    _restart_outputs(scheduler, call, upsample, x0, noise)
    scheduler.last_sample = None  # the next step is not corrected: its predictor never ran at the new size


def _restart_singlestep(scheduler: Any, call: int, upsample: Resample, x0: Tensor, noise: Tensor) -> None:
    _restart_outputs(scheduler, call, upsample, x0, noise)
    # Steps of higher order set out from where the last one of first order did.
    begin = scheduler.begin_index or 0
    start = max((at for at in range(begin, call + 1) if scheduler.order_list[at] == 1), default=begin)
    signal, noise_level = level(scheduler, start)
    scheduler.sample = (signal * x0 + noise_level * noise).to(scheduler.sample.dtype)


def _keeps_x0(scheduler: Any) -> bool:
    """Whether ``model_outputs`` holds predictions of x0, or else of the noise."""
    if setting(scheduler, "predict_x0", False):
        return True
    return str(setting(scheduler, "algorithm_type", "")).endswith("++")


# --- the table ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SchedulerKind:
    """How one class of schedulers works. See the functions of the same names above.

    Attributes:
        lists_last_sigma: its explicit sigmas include the zero at the end.
        time_shifts: values of ``time_shift_type`` that it shifts a flow's noise levels by.
    """

    level: Callable[[Any, int], Level]
    calls: Callable[[Any, int], tuple[int, ...]] = _one_call
    restart: Callable[[Any, int, Resample, Tensor, Tensor], None] = _no_history
    predictions: Sequence[str] = ("epsilon", "v_prediction", "sample")
    lists_last_sigma: bool = False
    scales_noise: bool = False
    returns_x0: bool = False
    time_shifts: Sequence[str] = ("exponential",)


# Those whose sample is x0 + sigma * n.
_exploding = partial(SchedulerKind, scales_noise=True, returns_x0=True)
_NO_SAMPLE = ("epsilon", "v_prediction")
_ANY = ("epsilon", "v_prediction", "sample", FLOW)

_SHIFTS = ("exponential", "linear")

SOLVERS: Mapping[str, SchedulerKind] = {
    "DDIMScheduler": SchedulerKind(alphas_by_stride, returns_x0=True),
    "DDPMScheduler": SchedulerKind(alphas, returns_x0=True),
    "DEISMultistepScheduler": SchedulerKind(scaled_sigmas, restart=_restart_outputs, predictions=_ANY),
    "DPMSolverMultistepScheduler": SchedulerKind(scaled_sigmas, restart=_restart_outputs, predictions=_ANY),
    "DPMSolverSinglestepScheduler": SchedulerKind(scaled_sigmas, restart=_restart_singlestep, predictions=_ANY),
    "EulerAncestralDiscreteScheduler": _exploding(sigmas, predictions=_NO_SAMPLE),
    "EulerDiscreteScheduler": _exploding(sigmas, lists_last_sigma=True),
    "FlowMatchEulerDiscreteScheduler": SchedulerKind(flow, predictions=(FLOW,), time_shifts=_SHIFTS),
    "FlowMatchHeunDiscreteScheduler": SchedulerKind(flow, calls=_two_calls, predictions=(FLOW,)),
    "HeunDiscreteScheduler": _exploding(sigmas, calls=_two_calls),
    "KDPM2AncestralDiscreteScheduler": _exploding(sigmas_and_midpoints(-1), calls=_two_calls, predictions=_NO_SAMPLE),
    "KDPM2DiscreteScheduler": _exploding(sigmas_and_midpoints(0), calls=_two_calls, predictions=_NO_SAMPLE),
    "LCMScheduler": SchedulerKind(alphas, returns_x0=True),
    "LMSDiscreteScheduler": _exploding(sigmas, restart=_restart_lms),
    "PNDMScheduler": SchedulerKind(alphas_by_stride, calls=_pndm_calls, restart=_restart_pndm, predictions=_NO_SAMPLE),
    "UniPCMultistepScheduler": SchedulerKind(
        scaled_sigmas, restart=_restart_unipc, predictions=_ANY, time_shifts=_SHIFTS
    ),
}
