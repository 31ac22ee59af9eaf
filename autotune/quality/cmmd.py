"""CMMD: MMD^2 with a Gaussian kernel between unit-normalised CLIP embeddings, times 1000.

    k(x, y) = exp(-|x - y|^2 / (2 sigma^2)),  sigma = 10

Jayasumana et al. 2024, "Rethinking FID: Towards a Better Evaluation Metric for Image Generation", section 4
(arXiv 2401.09603). Lower is better. Published values belong to CLIP ViT-L/14 at 336 pixels; the formula
takes any embeddings.

Caveat: unit vectors are at most 2 apart, a fifth of sigma, where the kernel is almost linear: up to a few per
cent CMMD is 10 |mean_x - mean_y|^2. It hardly sees a change of spread that leaves the mean where it was.
"""

from __future__ import annotations

from torch import Tensor

from autotune.quality.mmd import squared_mmd
from autotune.quality.tensors import double_rows

__all__ = ["SCALE", "SIGMA", "cmmd", "cmmd_unbiased", "gaussian_kernel", "unit_rows"]

SIGMA = 10.0
"""Width of the kernel, in the embedding's units."""

SCALE = 1000.0
"""Factor that makes the numbers readable."""


def cmmd(features: Tensor, reference: Tensor) -> float:
    """The value their code gives: the biased, minimum-variance estimate; never negative, zero for identical sets.

    Too large by about 10 (spread_x / N + spread_y / M), the spread being the mean squared distance to the
    mean: compare only sets of the same size.

    Args:
        features: (N, D), of any lengths but zero.
        reference: (M, D), likewise.

    Raises:
        ValueError: If a set has fewer than two rows, a row is zero or a value is not finite.
    """
    return _scaled(features, reference, biased=True)


def cmmd_unbiased(features: Tensor, reference: Tensor) -> float:
    """The unbiased estimate that the paper's abstract speaks of; may fall below zero. Otherwise as ``cmmd``."""
    return _scaled(features, reference, biased=False)


def gaussian_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Kernel (N, M) of features (N, D) and (M, D)."""
    squared = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * x @ y.T
    values: Tensor = (-squared / (2 * SIGMA**2)).exp()
    return values


def unit_rows(features: Tensor) -> Tensor:
    """Features (N, D) of length one, in float64 on the CPU.

    Raises:
        ValueError: If there are fewer than two rows, a row is zero or a value is not finite.
    """
    rows = double_rows(features)
    lengths = rows.norm(dim=1, keepdim=True)
    if not lengths.all():
        raise ValueError(f"{int((lengths == 0).sum())} of {len(rows)} features are zero and have no direction.")
    units: Tensor = rows / lengths
    return units


def _scaled(features: Tensor, reference: Tensor, *, biased: bool) -> float:
    return SCALE * float(squared_mmd(unit_rows(features), unit_rows(reference), gaussian_kernel, biased=biased))
