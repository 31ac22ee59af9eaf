"""Moving latents between sizes in the middle of denoising. Pure functions.

Latents are spatial here, (..., C, H, W) with any leading dimensions. Signal and noise need different
maps: clean latents keep their values when resized (bilinear), white noise keeps its variance when its
orthonormal DCT coefficients are kept. Every result is computed in float32 and has the input's dtype.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autotune.core.errors import PolicyError, did_you_mean
from autotune.runtime.schedulers import level, predict_x0

Size = tuple[int, int]


def resize(x: Tensor, size: Size) -> Tensor:
    """Clean latents at ``size``: bilinear, antialiased when shrinking."""
    height, width = x.shape[-2:]
    shrinks = size[0] < height or size[1] < width
    flat = x.float().reshape(-1, 1, height, width)
    resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=False, antialias=shrinks)
    return resized.reshape(*x.shape[:-2], *size).to(x.dtype)


def shrink_noise(noise: Tensor, size: Size) -> Tensor:
    """White noise at a smaller ``size``: the low frequencies of its orthonormal DCT-II.

    The map's rows are orthonormal, so unit white noise stays unit white noise, at any ratio of sizes.
    Shrinking in two goes gives the same as in one.
    """
    if noise.shape[-2:] == size:
        return noise
    rows, columns = _truncations(noise, size)
    return (rows @ noise.float() @ columns.mT).to(noise.dtype)


def embed_noise(low: Tensor, full: Tensor) -> Tensor:
    """``full`` with its low frequencies replaced by ``low``'s: ``shrink_noise`` gives ``low`` back.

    Args:
        low: unit noise (..., C, h, w).
        full: unit noise (..., C, H, W) whose high frequencies are kept.
    """
    if low.shape[-2:] == full.shape[-2:]:
        return low
    rows, columns = _truncations(full, (low.shape[-2], low.shape[-1]))
    change = low.float() - rows @ full.float() @ columns.mT
    return (full.float() + rows.mT @ change @ columns).to(low.dtype)


def hand_over(
    kind: str,
    scheduler: Any,
    call: int,
    output: Tensor,
    sample: Tensor,
    following: Tensor,
    size: Size,
    fresh: Callable[[], Tensor],
    initial: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Take denoising on at another size, between ``call`` and the next one.

    The latents at ``size`` are the predicted x0, resized, with noise of the schedule's next level. Signal
    and noise are resized separately, each keeping its scale, so the schedule goes on as it is. (SPEED,
    arXiv 2605.18736, moves the DCT coefficients of the noisy latents themselves, which changes the ratio
    of signal to noise and makes it re-scale the latents and re-time the schedule.)

    Args:
        kind: a name in :data:`HANDOVERS`.
        output: the denoiser's output at ``call``, after guidance.
        sample: the latents it was computed from.
        following: what ``scheduler.step`` made of them, at the old size.
        size: height and width to go on with.
        fresh: draws N(0, 1) at ``size`` from the pipeline's generator; called only where needed.
        initial: the pipeline's first latents as unit noise, at full size.

    Returns:
        The latents for the next call, the predicted x0 and the unit noise in them, all at ``size``.

    Raises:
        PolicyError: ``kind`` is unknown.
    """
    if kind not in HANDOVERS:
        raise PolicyError(f"the hand-off {kind!r} is unknown{did_you_mean(kind, HANDOVERS)}")
    signal, noise_level = level(scheduler, call + 1)
    x0 = predict_x0(scheduler, call, output, sample.float())
    low_noise = (following.float() - signal * x0) / noise_level
    x0 = resize(x0, size)
    noise = HANDOVERS[kind](low_noise, size, fresh, initial)
    latents = signal * x0 + noise_level * noise
    return latents.to(following.dtype), x0.to(following.dtype), noise.to(following.dtype)


def _renoise(low: Tensor, size: Size, fresh: Callable[[], Tensor], initial: Tensor) -> Tensor:
    """PostDiff, section 3.1: fresh noise."""
    return fresh().float()


def _noise_matched(low: Tensor, size: Size, fresh: Callable[[], Tensor], initial: Tensor) -> Tensor:
    """The noise still in the latents in the low frequencies, the pipeline's first noise in the new ones.

    Low-resolution DCT coefficients are kept as SPEED keeps them (arXiv 2605.18736). The high
    frequencies are those a run at full size would have begun with.
    """
    return embed_noise(low, shrink_noise(initial.float(), size))


HANDOVERS: Mapping[str, Callable[[Tensor, Size, Callable[[], Tensor], Tensor], Tensor]] = {
    "renoise": _renoise,
    "noise_matched": _noise_matched,
}


def _truncations(x: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    height, width = x.shape[-2:]
    return _truncation(size[0], height).to(x.device), _truncation(size[1], width).to(x.device)


def _truncation(low: int, full: int) -> Tensor:
    """(low, full): orthonormal DCT of length ``full``, its first ``low`` coefficients, inverse of length ``low``."""
    return (_dct(low).T @ _dct(full)[:low]).float()


def _dct(length: int) -> Tensor:
    """The orthonormal DCT-II as a matrix, in double precision on the CPU: small, and not every device has doubles."""
    at = torch.arange(length, dtype=torch.float64)
    matrix = torch.cos(math.pi / length * (at + 0.5) * at[:, None]) * math.sqrt(2 / length)
    matrix[0] /= math.sqrt(2)
    return matrix
