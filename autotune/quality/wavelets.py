"""What Haar wavelets see of pictures: how much of each band holds structure, without any network's weights.

Few steps blur, caches leave a mottle in plain areas: both change how much structure there is in fine bands, in every
picture alike, where a small CLIP sees nothing and one that takes 224 pixels sees nothing of a large picture.
:func:`textures` describes a picture by that, :func:`drift` is by how much a policy moves it **on average over
pictures**. That is blind to the difference of one picture from another: pictures that differ from the exact run's and
are as clean do not drift. :func:`from_mean` is the same to pictures that are no partners, such as a reference of real
ones: guidance in some steps only moves textures towards them or away. :func:`by_band` is a Frechet distance per band,
after the Frechet wavelet distance (Veeramacheneni et al., arXiv 2312.15289), with textures in place of all
coefficients: so 64 pictures suffice. :func:`haar_errors` compares structure pair by pair and place by place.
"""

from __future__ import annotations

import torch
from torch import Tensor

from autotune.quality.estimators import Measure
from autotune.quality.fidelity import check_pairs
from autotune.quality.frechet import Gaussian, distances, moments
from autotune.quality.tensors import double_rows

__all__ = ["LEVELS", "by_band", "band_distances", "detail_bands", "drift", "from_mean", "haar_errors", "textures"]

LEVELS = 3
"""Of the transform: bands of 1, 2 and 4 pixels. What is coarser than that, CLIP sees."""

_CONTRAST = 4.0
_MASKING = 16.0
# Luma and two chroma, BT.601.
_OPPONENTS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_CHANNELS = 3


def detail_bands(pictures: Tensor, levels: int = LEVELS) -> list[Tensor]:
    """Orthonormal Haar coefficients of luma and two colour differences, in grey levels.

    Args:
        pictures: (N, 3, H, W) uint8; of a side that cannot be halved as often, the last row or column is left out.
        levels: Of the transform.

    Returns:
        3 x ``levels`` tensors (N, 3, h, w): changes across, down and along diagonals, of the finest level first.

    Raises:
        ValueError: If a side has fewer than ``2 ** levels`` pixels.
    """
    if min(pictures.shape[-2:]) < 2**levels:
        raise ValueError(f"{levels} levels need {2**levels} pixels a side, not {tuple(pictures.shape[-2:])}.")
    values = torch.einsum("oc,nchw->nohw", torch.tensor(_OPPONENTS, device=pictures.device), pictures.float())
    bands = []
    for _ in range(levels):
        height, width = (side // 2 * 2 for side in values.shape[-2:])
        a, b = values[..., 0:height:2, 0:width:2], values[..., 0:height:2, 1:width:2]
        c, d = values[..., 1:height:2, 0:width:2], values[..., 1:height:2, 1:width:2]
        bands += [(a - b + c - d) / 2, (a + b - c - d) / 2, (a - b - c + d) / 2]
        values = (a + b + c + d) / 2
    return bands


def textures(pictures: Tensor, levels: int = LEVELS) -> Tensor:
    """How much of each band holds structure: (N, 9 x ``levels``) numbers from 0 to 1, three channels for each band.

    The mean of c^2 / (4^2 + c^2) over a band's coefficients c in grey levels: what nobody sees hardly counts, a faint
    mottle of 4 grey levels a half, and an edge no more than one. A mean of squares, as energies are, would see edges
    only.

    Args:
        pictures: (N, 3, H, W) uint8.
        levels: Of the transform.

    Raises:
        ValueError: If a side has fewer than ``2 ** levels`` pixels.
    """
    squares = (band.square() for band in detail_bands(pictures, levels))
    return torch.cat([(square / (_CONTRAST**2 + square)).mean((2, 3)) for square in squares], 1)


def drift(changes: Tensor, rows: Tensor) -> Tensor:
    """By how much textures change on average (B,): the mean over bands of the absolute mean over pictures.

    Args:
        changes: (N, D) a policy's :func:`textures` minus those of the pictures they are compared with.
        rows: (B, n) selections of the pictures; one may be selected several times, as bootstraps do.

    Raises:
        ValueError: If a change is not finite.
    """
    return double_rows(changes, least=1)[rows].mean(1).abs().mean(1)


def from_mean(reference: Gaussian) -> Measure:
    """How far mean textures are from a reference's: the mean over bands of the absolute difference of means.

    By the triangle inequality it falls by no more than :func:`drift` from the same pictures rises: in one unit, and
    where drift weighs more, no approximation gains by it, only what a policy means to do.

    Args:
        reference: Gaussian of the reference's :func:`textures`.

    Raises:
        ValueError: From the measure, for textures of another size.
    """

    def prepare(features: Tensor) -> Tensor:
        return _sized(features, len(reference.mean))

    def of_rows(prepared: Tensor, rows: Tensor) -> Tensor:
        return (prepared[rows].mean(1) - reference.mean).abs().mean(1)

    return Measure(prepare, of_rows)


def by_band(reference: Gaussian) -> Measure:
    """Mean Frechet distance over bands to pictures whose :func:`textures` have that Gaussian.

    Of few pictures the three numbers of a band are well known, the covariance of all bands with all is not.

    Raises:
        ValueError: If the Gaussian is not of three numbers for each band; from the measure, for textures of another
            size.
    """
    size = len(reference.mean)
    if size % _CHANNELS:
        raise ValueError(f"Textures come in threes, not as {size} numbers.")
    places = torch.arange(size).view(-1, _CHANNELS)
    bands = [Gaussian(reference.mean[at], reference.covariance[at[:, None], at], reference.n) for at in places]

    def prepare(features: Tensor) -> Tensor:
        return _sized(features, size)

    def of_rows(prepared: Tensor, rows: Tensor) -> Tensor:
        found = []
        for at, band in zip(places, bands, strict=True):
            found.append(distances(*moments(prepared[:, at][rows], shrink=False), band))
        return torch.stack(found).mean(0)

    return Measure(prepare, of_rows)


def _sized(features: Tensor, size: int) -> Tensor:
    rows = double_rows(features, least=1)
    if rows.shape[1] != size:
        raise ValueError(f"Textures of {rows.shape[1]} numbers cannot be compared with a reference's {size}.")
    return rows


def band_distances(textures: Tensor, rows: Tensor) -> Tensor:
    """Mean Frechet distance over bands (B,) between pictures and others, each selected with its partner.

    Args:
        textures: (n, 2 D) float64, :func:`textures` of n pictures beside those of n others; (n,) zeros, of pictures
            that are the others, have no distance.
        rows: (B, N) selections; only rows below n have a partner, and a selection without at least two of them counts
            as all of them.
    """
    if textures.ndim == 1:
        return torch.zeros(len(rows), dtype=torch.float64)
    n, both = len(textures), textures.shape[1] // 2
    counts = torch.stack([torch.bincount(each[each < n], minlength=n) for each in rows]).double()
    counts = torch.where(counts.sum(1, keepdim=True) > 1, counts, torch.ones_like(counts))
    # (B, 2, bands): of pictures and others, the three channels of every band.
    bands = textures.double().view(n, 2, both // _CHANNELS, _CHANNELS)
    total = counts.sum(1)
    mean = torch.einsum("bn,nsdk->bsdk", counts, bands) / total[:, None, None, None]
    second = torch.einsum("bn,nsdk,nsdl->bsdkl", counts, bands, bands) / total[:, None, None, None, None]
    outer = mean[..., :, None] * mean[..., None, :]
    covariance = (second - outer) * (total / (total - 1))[:, None, None, None, None]
    ours, theirs = covariance[:, 0], covariance[:, 1]
    # The product of two positive matrices has real eigenvalues of at least zero, but for rounding.
    shared = torch.linalg.eigvals(ours @ theirs).real.clamp(min=0).sqrt().sum(-1)
    traces = (ours + theirs).diagonal(dim1=-2, dim2=-1).sum(-1)
    apart = (mean[:, 0] - mean[:, 1]).square().sum(-1) + traces - 2 * shared
    result: Tensor = apart.clamp(min=0).mean(1)
    return result


def haar_errors(pictures: Tensor, others: Tensor, levels: int = LEVELS) -> Tensor:
    """How far the structures of pairs of pictures are apart (N,), 0 for equal ones and less than 2 for any.

    The mean, over bands and places, of the difference of two coefficients a and b, masked by the contrast that is
    there already: |a - b| / (16 + max(|a|, |b|)), in grey levels. So grain in plain areas, lost edges and blocks' edges
    all count, and large differences no more than others.

    Args:
        pictures: (N, 3, H, W) uint8.
        others: (N, 3, H, W) uint8.
        levels: Of the transform.

    Raises:
        ValueError: If shapes or types differ, or a side has fewer than ``2 ** levels`` pixels.
    """
    check_pairs(pictures, others)
    pairs = zip(detail_bands(pictures, levels), detail_bands(others, levels), strict=True)
    errors = [((a - b).abs() / (_MASKING + torch.maximum(a.abs(), b.abs()))).mean((1, 2, 3)) for a, b in pairs]
    return torch.stack(errors, 1).mean(1).double().cpu()
