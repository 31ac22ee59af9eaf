"""Kernel inception distance: MMD^2 with the polynomial kernel k(x, y) = (x y / D + 1)^3.

Binkowski et al. 2018, "Demystifying MMD GANs", section 4 (arXiv 1801.01401). Lower is better; the unit
is the kernel's, so values of different networks do not compare. Unbiased at any number of pictures,
hence of either sign where there is little to tell. The kernel takes features as they are: of
L2-normalised ones x y / D is at most 1 / D, and it is then close to linear: it sees little more than
the difference of the means.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autotune.quality.mmd import squared_mmd
from autotune.quality.tensors import double_rows

__all__ = ["SubsetKid", "kid", "kid_over_subsets", "polynomial_kernel"]


@dataclass(frozen=True)
class SubsetKid:
    """Mean and standard deviation (of the values, not of their mean) over subsets; lower is better."""

    mean: float
    std: float


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """Kernel (N, M) of features (N, D) and (M, D)."""
    values: Tensor = (x @ y.T / x.shape[1] + 1) ** 3
    return values


def kid(features: Tensor, reference: Tensor) -> float:
    """Unbiased estimate from all pairs of features (N, D) and reference features (M, D).

    Raises:
        ValueError: If a set has fewer than two rows or a value is not finite.
    """
    return float(squared_mmd(double_rows(features), double_rows(reference), polynomial_kernel, biased=False))


def kid_over_subsets(
    features: Tensor, reference: Tensor, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> SubsetKid:
    """The estimate as papers print it: over random subsets of ``size`` rows of either set.

    On average the same number as ``kid``, which uses every pair at once and so has less noise. The
    subsets are those of torchmetrics' ``KernelInceptionDistance`` after ``torch.manual_seed(seed)``.

    Raises:
        ValueError: If a set has fewer than ``size`` rows, ``size`` is below two, or a value is not finite.
    """
    if size < 2 or subsets < 1:
        raise ValueError(f"Expected at least one subset of at least two rows, not {subsets} of {size}.")
    ours, theirs = double_rows(features, least=size), double_rows(reference, least=size)
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(subsets, dtype=torch.float64)
    for i in range(subsets):
        y, x = _drawn(theirs, size, generator), _drawn(ours, size, generator)
        values[i] = squared_mmd(x, y, polynomial_kernel, biased=False)
    return SubsetKid(float(values.mean()), float(values.std(unbiased=False)))


def _drawn(rows: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)[:size]]
