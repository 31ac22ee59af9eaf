"""Frechet distance between Gaussians fitted to image features.

d(a, b) = |mean_a - mean_b|^2 + tr(C_a + C_b - 2 (C_b^1/2 C_a C_b^1/2)^1/2)

(Dowson and Landau 1982, equation 16; "FID" when the features are Inception's, Heusel et al. 2017).
Written with the symmetric product, so that only symmetric eigendecompositions are needed: nothing
turns complex, and what rounding makes negative is zero.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality.tensors import check_finite, write_tensors

__all__ = ["Gaussian", "distances", "fit", "frechet_distance", "moments"]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Mean and covariance of a set of features.

    Attributes:
        mean: (D,) float64.
        covariance: (D, D) float64, symmetric.
        n: How many feature rows they were estimated from.

    Raises:
        ValueError: If the shapes do not fit each other or a value is not finite.
    """

    mean: Tensor
    covariance: Tensor
    n: int

    def __post_init__(self) -> None:
        if self.mean.ndim != 1 or self.covariance.shape != (len(self.mean), len(self.mean)):
            raise ValueError(
                f"A mean of shape (D,) goes with a covariance of shape (D, D), "
                f"not {tuple(self.mean.shape)} with {tuple(self.covariance.shape)}."
            )
        check_finite(self.mean, "mean")
        check_finite(self.covariance, "covariance")

    def project(self, basis: Tensor) -> Gaussian:
        """This Gaussian as seen along the columns of ``basis`` (D, K)."""
        return Gaussian(self.mean @ basis, basis.T @ self.covariance @ basis, self.n)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file; whoever reads ``path`` meanwhile sees the old file or the new one."""
        write_tensors(path, {"mean": self.mean, "covariance": self.covariance}, {"n": str(self.n)})

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Gaussian:
        """Read what ``save`` wrote.

        Raises:
            InputError: If the file is missing, damaged or something else.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                n = int(file.metadata()["n"])
                return Gaussian(file.get_tensor("mean"), file.get_tensor("covariance"), n)
        except OSError as error:
            raise InputError(f"Cannot read reference statistics {path}: {error}.") from error
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} holds no usable reference statistics: {error}.") from error


def fit(features: Tensor, *, shrink: bool = True) -> Gaussian:
    """The Gaussian of features (N, D), in float64 on the CPU.

    Args:
        features: (N, D), at least two rows.
        shrink: Regularise the covariance; see ``moments``.

    Raises:
        ValueError: If there are fewer than two rows or a value is not finite.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"A covariance needs features of shape (N, D) with N >= 2, not {tuple(features.shape)}.")
    check_finite(features, "features")
    mean, covariance = moments(features.detach().cpu().double(), shrink=shrink)
    return Gaussian(mean, covariance, len(features))


def moments(features: Tensor, *, shrink: bool = True) -> tuple[Tensor, Tensor]:
    """Mean and covariance of each set of features in a batch of sets.

    Args:
        features: (..., N, D).
        shrink: Pull the sample covariance S towards the multiple of the identity with the same trace,
            by the share rho = b^2 / d^2 that minimises the expected squared error (Ledoit and Wolf 2004,
            "A well-conditioned estimator for large-dimensional covariance matrices", equation 14 with
            the estimators of section 3.3). Few rows give much, many rows almost no shrinkage.

    Returns:
        Mean (..., D) and unbiased covariance (..., D, D).
    """
    n, d = features.shape[-2:]
    mean = features.mean(-2)
    centred = features - mean.unsqueeze(-2)
    sample = centred.mT @ centred / n
    if shrink:
        average = sample.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        target = average * torch.eye(d, dtype=sample.dtype, device=sample.device)
        squared = sample.square().sum((-2, -1), keepdim=True)
        # d^2: distance of S from the target. b^2: variance of S, from |x x' - S|^2 averaged over the rows x.
        d2 = (sample - target).square().sum((-2, -1), keepdim=True)
        fourth = centred.square().sum(-1).square().mean(-1)[..., None, None]
        b2 = torch.minimum((fourth - squared) / n, d2)
        share = torch.where(d2 > 0, b2 / d2, 0.0)
        sample = sample.lerp(target, share)
    return mean, sample * (n / (n - 1))


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Distance between two Gaussians: zero if they are equal, in squared units of the features.

    Raises:
        ValueError: If their dimensions differ.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"Features of {len(a.mean)} and of {len(b.mean)} dimensions come from different networks.")
    return float(distances(a.mean, a.covariance, b))


def distances(mean: Tensor, covariance: Tensor, reference: Gaussian) -> Tensor:
    """Frechet distances (...,) of many Gaussians, means (..., D) and covariances (..., D, D), to one."""
    values, vectors = torch.linalg.eigh(reference.covariance)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    product = root @ covariance @ root
    shared = torch.linalg.eigvalsh((product + product.mT) / 2).clamp(min=0).sqrt().sum(-1)
    traces = covariance.diagonal(dim1=-2, dim2=-1).sum(-1) + reference.covariance.trace()
    result: Tensor = (mean - reference.mean).square().sum(-1) + traces - 2 * shared
    return result.clamp(min=0)
