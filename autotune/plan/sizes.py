"""Sides of the latents: which scales a denoiser accepts, and the size at every step of a policy."""

from __future__ import annotations

from fractions import Fraction

from autotune.core.errors import InputError, PolicyError
from autotune.plan.structure import Structure
from autotune.policy import Policy

MIN_SCALE = Fraction(1, 4)
"""Of a side of the latents: below a quarter hardly any picture is left to speak of."""

_MOST_SCALES = 8


def latent_size(full: int, scale: float, multiple: int) -> int:
    """The latents' side length at ``scale``.

    Raises:
        PolicyError: it is not a whole multiple of what the denoiser accepts.
    """
    size = Fraction(scale).limit_denominator(1000) * full
    if size.denominator != 1 or size % multiple or size == 0:
        nearest = sorted(range(multiple, full, multiple), key=lambda n: abs(n - size))[:_MOST_SCALES]
        scales = ", ".join(f"{n / full:.4g}" for n in sorted(nearest))
        raise PolicyError(
            f"resolution scale {scale:g} gives latents of {float(size):g} a side, this denoiser takes multiples of"
            f" {multiple}: use one of {scales or 'no other scale at this size'}"
        )
    return int(size)


def accepted_scales(height: int, width: int, multiple: int) -> tuple[Fraction, ...]:
    """Scales from a quarter to 1, growing, at which both sides of the latents stay whole multiples of ``multiple``.

    Raises:
        InputError: the full size itself is no such multiple.
    """
    if height % multiple or width % multiple:
        raise InputError(
            f"latents of {height}x{width} do not fit this denoiser; choose a picture size whose latents are"
            f" multiples of {multiple} a side"
        )
    scales = (Fraction(side, height) for side in range(multiple, height + 1, multiple))
    return tuple(scale for scale in scales if scale >= MIN_SCALE and (scale * width) % multiple == 0)


def sizes_of(policy: Policy, structure: Structure, height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of the latents in each of the policy's steps; ``height`` x ``width`` are the full ones.

    Raises:
        PolicyError: a stage's scale gives a size that the denoiser does not accept.
    """
    sizes: list[tuple[int, int]] = []
    for stage in policy.resolution:
        size = tuple(latent_size(full, stage.scale, structure.size_multiple) for full in (height, width))
        sizes += [(size[0], size[1])] * (stage.until_step - len(sizes))
    return sizes + [(height, width)] * (policy.steps - len(sizes))
