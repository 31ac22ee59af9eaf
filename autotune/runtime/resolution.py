"""Moving latents from one resolution to the next in the middle of denoising. Pure functions."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from autotune.errors import PolicyError


def predict_x0(output: Tensor, sample: Tensor, alpha_cumprod: Tensor, prediction_type: str) -> Tensor:
    """The clean latents a denoiser's output implies (Ho et al. 2020, eq. 15; Salimans & Ho 2022, appendix D).

    Args:
        output: the denoiser's output after guidance, (B, C, H, W).
        sample: the noisy latents it was computed from, (B, C, H, W).
        alpha_cumprod: the product of alphas at that timestep, a scalar tensor.
        prediction_type: ``epsilon``, ``v_prediction`` or ``sample``.
    """
    signal, noise = alpha_cumprod.sqrt(), (1 - alpha_cumprod).sqrt()
    if prediction_type == "epsilon":
        return (sample - noise * output) / signal
    if prediction_type == "v_prediction":
        return signal * sample - noise * output
    if prediction_type == "sample":
        return output
    raise PolicyError(f"prediction type {prediction_type!r} has no known formula for x0")


def renoise(
    scheduler: Any,
    output: Tensor,
    sample: Tensor,
    timestep: Any,
    next_timestep: Tensor,
    size: tuple[int, int],
    generator: torch.Generator | list[torch.Generator] | None,
) -> Tensor:
    """PostDiff's hand-off (section 3.1): x0, resized bilinearly in latent space, with fresh noise.

    Returns:
        Noisy latents (B, C, *size) at ``next_timestep``.
    """
    alpha = scheduler.alphas_cumprod[torch.as_tensor(timestep).cpu()].to(sample)
    x0 = predict_x0(output.to(sample.dtype), sample, alpha, scheduler.config.prediction_type)
    x0 = F.interpolate(x0, size=size, mode="bilinear", align_corners=False)
    noise = randn_tensor(x0.shape, generator=generator, device=x0.device, dtype=x0.dtype)
    timesteps = next_timestep.to(x0.device).expand(x0.shape[0])
    latents: Tensor = scheduler.add_noise(x0, noise, timesteps)
    return latents
