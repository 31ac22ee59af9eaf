"""How near pictures are to the full run's pictures of the same prompts from the same noise.

Unlike a distance between distributions this compares picture by picture: it needs no reference, has far
less noise, and asks for the pictures one had rather than for good ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from autotune.quality.tensors import double_rows

__all__ = ["Fidelity", "check_pairs", "feature_distances", "largest_psnr", "measure_fidelity", "psnr", "ssim"]

_PEAK = 255.0
_WINDOW = 11
# Values per batch: 8 MB a copy in float64, of which SSIM makes about twenty.
_VALUES = 1 << 20


@dataclass(frozen=True, eq=False)
class Fidelity:
    """Closeness of N pictures to N others, pair by pair.

    Attributes:
        psnr: (N,) float64 in decibels, higher is closer; identical pairs have ``largest_psnr``, so that all
            values and their mean are finite.
        ssim: (N,) float64, at most 1, which identical pairs have.
        identical: (N,) bool, pairs that agree in every value.
        feature_distance: (N,) float64, one minus the cosine of the pictures' features, 0 to 2, lower is
            closer; None where no features were given.
    """

    psnr: Tensor
    ssim: Tensor
    identical: Tensor
    feature_distance: Tensor | None = None

    @property
    def mean_psnr(self) -> float:
        """Mean of the pairs' PSNR, in decibels."""
        return float(self.psnr.mean())

    @property
    def mean_ssim(self) -> float:
        """Mean of the pairs' SSIM."""
        return float(self.ssim.mean())

    @property
    def identical_share(self) -> float:
        """Share of pairs that are identical, 0 to 1."""
        return float(self.identical.double().mean())

    @property
    def mean_feature_distance(self) -> float | None:
        """Mean distance of the pairs' features."""
        return None if self.feature_distance is None else float(self.feature_distance.mean())


def measure_fidelity(
    pictures: Tensor, full: Tensor, *, features: Tensor | None = None, full_features: Tensor | None = None
) -> Fidelity:
    """Compare each picture with the full run's.

    Args:
        pictures: (N, 3, H, W) uint8, H and W at least 11.
        full: (N, 3, H, W) uint8, picture i from the same prompt and noise.
        features: (N, D), of ``pictures``.
        full_features: (N, D), of ``full``; given together with ``features``.

    Raises:
        ValueError: If shapes or types differ, or a feature is not finite.
    """
    if (features is None) != (full_features is None):
        raise ValueError("Features of one side alone cannot be compared: give both or none.")
    check_pairs(pictures, full)
    count = max(1, _VALUES // pictures[0].numel())
    pairs = list(zip(torch.split(pictures, count), torch.split(full, count), strict=True))
    distances = None
    if features is not None and full_features is not None:
        distances = feature_distances(features, full_features)
        if len(distances) != len(pictures):
            raise ValueError(f"{len(pictures)} pictures go with as many features, not {len(distances)}.")
    return Fidelity(
        psnr=torch.cat([psnr(a, b) for a, b in pairs]),
        ssim=torch.cat([ssim(a, b) for a, b in pairs]),
        identical=(pictures == full).flatten(1).all(1).cpu(),
        feature_distance=distances,
    )


def psnr(pictures: Tensor, full: Tensor) -> Tensor:
    """Peak signal-to-noise ratio (N,) in decibels, 10 log10(255^2 / mean squared error), at most ``largest_psnr``.

    Args:
        pictures: (N, 3, H, W) uint8.
        full: (N, 3, H, W) uint8.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    check_pairs(pictures, full)
    a, b = pictures.cpu().double(), full.cpu().double()
    values: Tensor = peak_signal_noise_ratio(a, b, data_range=_PEAK, reduction="none", dim=(1, 2, 3))
    return values.clamp(max=largest_psnr(pictures[0].numel()))


def largest_psnr(values: int) -> float:
    """PSNR in decibels of two pictures of that many values of which one value differs, by one: 89 dB at 3x64x64.

    No two different 8-bit pictures are closer. Identical ones, whose PSNR would be infinite, get the same.
    """
    return 10 * math.log10(_PEAK**2 * values)


def ssim(pictures: Tensor, full: Tensor) -> Tensor:
    """Structural similarity (N,), 1 for identical pictures (Wang et al. 2004; Gaussian window of 11 pixels).

    Args:
        pictures: (N, 3, H, W) uint8, H and W at least 11.
        full: (N, 3, H, W) uint8.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    check_pairs(pictures, full)
    if min(pictures.shape[-2:]) < _WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {_WINDOW} pixels a side, not {tuple(pictures.shape[-2:])}.")
    a, b = pictures.cpu().double(), full.cpu().double()
    values: Tensor = structural_similarity_index_measure(a, b, data_range=_PEAK, reduction="none")
    return values.reshape(-1)


def feature_distances(features: Tensor, full_features: Tensor) -> Tensor:
    """One minus the cosine (N,) between features (N, D) and (N, D) of any length, row by row; exactly 0 if equal.

    Raises:
        ValueError: If the shapes differ or a value is not finite.
    """
    if features.shape != full_features.shape:
        raise ValueError(
            f"Features {tuple(features.shape)} cannot be compared in pairs with {tuple(full_features.shape)}."
        )
    a, b = (F.normalize(double_rows(x, least=1), dim=1) for x in (features, full_features))
    # Half the squared distance of unit vectors is the same number, without the cancellation in 1 - cos.
    result: Tensor = (a - b).square().sum(1) / 2
    return result


def check_pairs(pictures: Tensor, full: Tensor) -> None:
    """Refuse what is not two sets of as many pictures of one size."""
    if pictures.shape != full.shape or pictures.ndim != 4 or pictures.shape[1] != 3 or len(pictures) == 0:
        raise ValueError(
            f"Expected pairs of pictures (N, 3, H, W), got {tuple(pictures.shape)} and {tuple(full.shape)}."
        )
    if pictures.dtype != torch.uint8 or full.dtype != torch.uint8:
        raise ValueError(f"Expected pictures in uint8, got {pictures.dtype} and {full.dtype}.")
