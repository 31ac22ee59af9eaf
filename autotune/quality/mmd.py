"""Maximum mean discrepancy: how far apart two sets of features lie under a kernel (Gretton et al. 2012).

    MMD^2(X, Y) = E k(x, x') + E k(y, y') - 2 E k(x, y)

It needs no covariance, so it is as well defined for thirty pictures as for thirty thousand.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Kernel", "selected_mmd", "self_similarity", "squared_mmd"]

Kernel = Callable[[Tensor, Tensor], Tensor]
"""Takes (N, D) and (M, D), returns (N, M)."""


def squared_mmd(x: Tensor, y: Tensor, kernel: Kernel, *, biased: bool, y_similarity: Tensor | None = None) -> Tensor:
    """MMD^2 between features (N, D) and (M, D), a scalar in the kernel's units.

    Args:
        x: (N, D), at least two rows.
        y: (M, D), at least two rows; M may differ from N.
        kernel: The kernel.
        biased: Average over all pairs (equation 5 of Gretton et al.: never negative, zero for identical
            sets, too large by an amount that falls as 1/N + 1/M), or leave out each row's pair with
            itself (equation 3: right on average, of either sign for equal distributions).
        y_similarity: ``self_similarity(y, kernel, biased=biased)`` where it is known already.

    Raises:
        ValueError: If the dimensions differ.
    """
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"Features of {x.shape[1]} and of {y.shape[1]} dimensions come from different networks.")
    if y_similarity is None:
        y_similarity = self_similarity(y, kernel, biased=biased)
    return self_similarity(x, kernel, biased=biased) + y_similarity - 2 * kernel(x, y).mean()


def selected_mmd(x: Tensor, rows: Tensor, y: Tensor, kernel: Kernel, *, biased: bool, y_similarity: Tensor) -> Tensor:
    """MMD^2 (B,) between selections of the features (N, D), given as row numbers (B, n), and (M, D).

    A row selected several times is no evidence that features resemble each other: without bias, pairs of
    it are left out like pairs of a row with itself.

    Raises:
        ValueError: If the dimensions differ.
    """
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"Features of {x.shape[1]} and of {y.shape[1]} dimensions come from different networks.")
    among = kernel(x, x)
    if not biased:
        among = among - among.diagonal().diag()
    times = torch.zeros(len(rows), len(x), dtype=x.dtype).scatter_add_(1, rows, torch.ones_like(rows, dtype=x.dtype))
    pairs = rows.shape[1] ** 2 - (0 if biased else times.square().sum(1))
    own = ((times @ among) * times).sum(1) / pairs
    across = times @ kernel(x, y).mean(1) / rows.shape[1]
    return own + y_similarity - 2 * across


def self_similarity(x: Tensor, kernel: Kernel, *, biased: bool) -> Tensor:
    """Mean kernel value over the pairs of rows of (N, D), with or without each row's pair with itself."""
    values = kernel(x, x)
    if biased:
        return values.mean()
    n = len(x)
    return (values.sum() - values.trace()) / (n * (n - 1))
