"""Frechet distances of few pictures: fast for fewer pictures than dimensions, and extrapolated to infinitely many.

The distance of N pictures is too large by about c / N, and c differs between generators, so that even at the
same N it ranks them by more than their quality (Chong and Forsyth 2020, "Effectively Unbiased FID and
Inception Score and where to find them", arXiv 1911.07023). They measure subsets of several sizes, fit a line
over 1 / N and read it at zero, from 5,000 to 50,000 pictures and one subset of each size. Of 32 to 256
pictures one subset says little: here each size has several, drawn without replacement.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autotune.quality.frechet import Gaussian
from autotune.quality.tensors import double_rows

__all__ = ["Anchor", "Extrapolation", "extrapolate"]

# Values of one batch of subsets: 32 MB in float64.
_VALUES = 1 << 22


class Anchor:
    """A reference Gaussian, prepared for the plain (unshrunk) Frechet distances of many sets of features to it.

    With Z the centred features times the root of the reference's covariance, the eigenvalues that the
    distance needs are those of Z'Z (D, D) / (N - 1) and, but for zeros, of ZZ' (N, N) / (N - 1): the
    smaller of the two is decomposed, and it is symmetric.

    Args:
        reference: Gaussian of dimension D.
    """

    def __init__(self, reference: Gaussian) -> None:
        values, vectors = torch.linalg.eigh(reference.covariance)
        self._root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        self._mean = reference.mean
        self._trace = reference.covariance.trace()

    def distance(self, features: Tensor) -> float:
        """Distance of the features (N, D), N >= 2: what ``frechet_distance(fit(features, shrink=False), ...)`` gives.

        Raises:
            ValueError: If the shape does not fit or a value is not finite.
        """
        rows = self._rows(features)
        return float(self._distances(rows[None], (rows @ self._root)[None]))

    def subset_distances(self, features: Tensor, subsets: Tensor) -> Tensor:
        """Distances (B,) of subsets of the features (N, D), given as their row numbers (B, S), S >= 2."""
        rows = self._rows(features)
        rooted = rows @ self._root
        batch = max(1, _VALUES // (subsets.shape[1] * max(rows.shape[1], subsets.shape[1])))
        return torch.cat([self._distances(rows[part], rooted[part]) for part in torch.split(subsets, batch)])

    def _rows(self, features: Tensor) -> Tensor:
        rows = double_rows(features)
        if rows.shape[1] != len(self._mean):
            raise ValueError(
                f"Features of {rows.shape[1]} and a reference of {len(self._mean)} dimensions "
                "come from different networks."
            )
        return rows

    def _distances(self, rows: Tensor, rooted: Tensor) -> Tensor:
        """Distances (B,) of sets (B, S, D), given also times the root."""
        size, dimensions = rows.shape[-2:]
        mean = rows.mean(1, keepdim=True)
        variance = (rows - mean).square().sum((1, 2)) / (size - 1)
        centred = (rooted - rooted.mean(1, keepdim=True)) / (size - 1) ** 0.5
        product = centred @ centred.mT if size < dimensions else centred.mT @ centred
        shared = torch.linalg.eigvalsh(product).clamp(min=0).sqrt().sum(-1)
        offset = (mean[:, 0] - self._mean).square().sum(-1)
        result: Tensor = (offset + variance + self._trace - 2 * shared).clamp(min=0)
        return result


@dataclass(frozen=True)
class Extrapolation:
    """A line through mean distances over one by the number of pictures.

    Attributes:
        value: The line at infinitely many pictures, in the distance's units. Lower is better; it may fall
            below zero, and is not cut off there, because the order of such values still says something.
        slope: What the distance is too large by, times the number of pictures.
        sizes: Pictures in a subset, ascending.
        distances: Mean distance over the subsets of each size.
    """

    value: float
    slope: float
    sizes: tuple[int, ...]
    distances: tuple[float, ...]


def extrapolate(
    features: Tensor,
    anchor: Anchor,
    *,
    points: int = 5,
    subsets: int = 16,
    smallest: float = 0.5,
    seed: int = 0,
) -> Extrapolation:
    """FID-infinity: the Frechet distance that infinitely many such pictures would have.

    The subsets depend on N and the seed alone, so candidates with the same prompts in the same order are
    judged on the same subsets. The reference's own finite number of pictures is not corrected for.

    The bias is a line over 1 / N only where the smallest subset has more rows than there are dimensions.
    Of Gaussians with a spectrum of 1 / k (128 dimensions, trace 1) the first 32 dimensions had a bias of 0.077 (64
    pictures), 0.037 (128) and 0.018 (256), which became -0.019, -0.002 and -0.001 at 1.1 to 1.3 times the spread;
    all 128 had 0.346, 0.156 and 0.070, which became 0.115, -0.034 and -0.016. Subsets down to a quarter of the
    pictures left more bias, and more points or subsets gained nothing. Of few pictures, take few dimensions.

    Args:
        features: (N, D), N >= 8.
        anchor: What the distance is measured to.
        points: Sizes of subsets, evenly spaced over 1 / N.
        subsets: Subsets of each size; the largest size is the whole set, and needs one.
        smallest: The smallest size as a share of N.
        seed: Of the subsets.

    Raises:
        ValueError: If there are too few rows, the shapes do not fit or a value is not finite.
    """
    rows = double_rows(features, least=8)
    n = len(rows)
    inverse = torch.linspace(1 / n, 1 / (smallest * n), points, dtype=torch.float64)
    sizes = sorted({int(size) for size in (1 / inverse).round().tolist()})
    generator = torch.Generator().manual_seed(seed)
    means = [
        anchor.subset_distances(rows, _subsets(n, size, 1 if size == n else subsets, generator)).mean()
        for size in sizes
    ]
    slope, value = _line(1 / torch.tensor(sizes, dtype=torch.float64), torch.stack(means))
    return Extrapolation(value, slope, tuple(sizes), tuple(float(mean) for mean in means))


def _subsets(n: int, size: int, count: int, generator: torch.Generator) -> Tensor:
    """Row numbers (count, size), each subset without repetition; consecutive ones are disjoint while they fit."""
    fit = n // size
    rounds = -(-count // fit)
    drawn = [torch.randperm(n, generator=generator)[: fit * size].view(fit, size) for _ in range(rounds)]
    return torch.cat(drawn)[:count]


def _line(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Slope and intercept of the line of least squares."""
    centred = x - x.mean()
    slope = (centred * y).sum() / centred.square().sum()
    return float(slope), float(y.mean() - slope * x.mean())
