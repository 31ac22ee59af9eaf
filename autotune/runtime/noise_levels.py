"""Where the noise levels of diffusers' schedulers are found, and what a denoiser's output means at one of them.

A scheduler's class decides the former, its prediction type the latter; :mod:`autotune.runtime.schedulers` says which
class has which.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

Level = tuple[float, float]
"""``(signal, noise)``: a sample is ``signal * x0 + noise * n`` with unit noise ``n``."""

FLOW = "flow_prediction"


def _of_alpha(alpha: float) -> Level:
    return math.sqrt(alpha), math.sqrt(1 - alpha)


def alphas(scheduler: Any, call: int) -> Level:
    """By ``alphas_cumprod`` at the timesteps; the end is clean (DDPM, LCM)."""
    if call == len(scheduler.timesteps):
        return 1.0, 0.0
    return _of_alpha(float(scheduler.alphas_cumprod[int(scheduler.timesteps[call])]))


def alphas_by_stride(scheduler: Any, call: int) -> Level:
    """As :func:`alphas`, but the last step goes one stride back, perhaps not to zero (DDIM, PNDM)."""
    if call < len(scheduler.timesteps):
        return alphas(scheduler, call)
    stride = scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    end = int(scheduler.timesteps[-1]) - stride
    return _of_alpha(float(scheduler.alphas_cumprod[end] if end >= 0 else scheduler.final_alpha_cumprod))


def sigmas(scheduler: Any, call: int) -> Level:
    """Variance exploding: sample = x0 + sigma * n (Karras et al. 2022)."""
    return 1.0, float(scheduler.sigmas[call])


def sigmas_and_midpoints(offset: int) -> Callable[[Any, int], Level]:
    """As :func:`sigmas`, with a call between every two sigmas; ``offset`` is where its own sigma is listed."""

    def find(scheduler: Any, call: int) -> Level:
        return (1.0, float(scheduler.sigmas_interpol[call + offset])) if call % 2 else sigmas(scheduler, call)

    return find


def scaled_sigmas(scheduler: Any, call: int) -> Level:
    """Sigmas turned into a variance-preserving level, or a flow's, by the scheduler itself."""
    signal, noise = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[call])
    return float(signal), float(noise)


def flow(scheduler: Any, call: int) -> Level:
    """The straight line between data and noise (Lipman et al. 2023)."""
    sigma = float(scheduler.sigmas[call])
    return 1 - sigma, sigma


def _x0_from_velocity(signal: float, noise: float, output: Tensor, sample: Tensor) -> Tensor:
    # The velocity is defined for latents of unit variance; norm is 1 except where sample = x0 + sigma * n.
    norm = math.hypot(signal, noise)
    return (signal / norm) * (sample / norm) - (noise / norm) * output


X0: Mapping[str, Callable[[float, float, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda signal, noise, output, sample: (sample - noise * output) / signal,
    "v_prediction": _x0_from_velocity,
    "sample": lambda signal, noise, output, sample: output,
    FLOW: lambda signal, noise, output, sample: sample - noise * output,
}

# The output that x0 and noise imply, at a variance-preserving level: for schedulers that keep raw outputs.
OUTPUT: Mapping[str, Callable[[float, float, Tensor, Tensor], Tensor]] = {
    "epsilon": lambda signal, noise_level, x0, noise: noise,
    "v_prediction": lambda signal, noise_level, x0, noise: signal * noise - noise_level * x0,
}
