"""Distances of few pictures to a reference, by name, so that they can be swapped and compared.

    frechet                      the plain Frechet distance: FID's formula, too large for few pictures
    frechet-shrunk               with the Ledoit-Wolf covariance
    frechet-subspace-K           along the reference's K leading directions
    frechet-shrunk-subspace-K    both; with K = 32 the distance that ``Objective`` takes
    frechet-infinity             extrapolated to infinitely many pictures
    frechet-subspace-K-infinity  the same along K directions
    kid                          kernel inception distance, unbiased
    cmmd, cmmd-unbiased          CMMD as its code and as its abstract has it

Lower is better in all of them, and each has a unit of its own.

Example::

    from autotune.quality import Reference, estimator

    reference = Reference.of(scorer.image_features(real_pictures))
    estimator("kid")(scorer.image_features(pictures), reference)
    measure = estimator("frechet-subspace-32").against(reference)  # for many candidates
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from autotune.core.errors import InputError, did_you_mean
from autotune.quality.cmmd import SCALE, gaussian_kernel, unit_rows
from autotune.quality.extrapolation import Anchor, extrapolate
from autotune.quality.frechet import Gaussian, distances, moments
from autotune.quality.kid import polynomial_kernel
from autotune.quality.mmd import Kernel, selected_mmd, self_similarity
from autotune.quality.reference import Reference
from autotune.quality.tensors import double_rows

__all__ = ["NAMES", "Estimator", "Measure", "estimator", "leading_directions"]

_VALUES = 1 << 22
"""Values gathered at once for many selections of rows: 32 MB in float64."""


@dataclass(frozen=True)
class Measure:
    """Distances to one reference.

    Attributes:
        prepare: Takes features (N, D), returns (N, K) float64: what of them the distance looks at.
        of_rows: Takes prepared features (N, K) and row numbers (B, n), returns the distances (B,) of these
            selections. A row may be selected several times, as bootstraps do.
    """

    prepare: Callable[[Tensor], Tensor]
    of_rows: Callable[[Tensor, Tensor], Tensor]

    def __call__(self, features: Tensor) -> float:
        """Distance of the features (N, D).

        Raises:
            ValueError: If there are too few rows, the dimensions differ or a value is not finite.
        """
        prepared = self.prepare(features)
        return float(self.of_rows(prepared, torch.arange(len(prepared))[None]))


NAMES = (
    "frechet",
    "frechet-shrunk",
    "frechet-subspace-16",
    "frechet-subspace-32",
    "frechet-subspace-64",
    "frechet-shrunk-subspace-32",
    "frechet-infinity",
    "frechet-subspace-32-infinity",
    "kid",
    "cmmd",
    "cmmd-unbiased",
)
"""The estimators worth comparing; any other number of directions is understood too."""

_FRECHET = re.compile(r"frechet(?P<shrunk>-shrunk)?(-subspace-(?P<components>[1-9]\d*))?(?P<infinity>-infinity)?")


@dataclass(frozen=True)
class Estimator:
    """A way to measure how far pictures are from a reference.

    Attributes:
        name: What ``estimator`` knows it by.
        against: Prepares a reference once for many candidates.
        needs_features: Whether it needs the reference's features, not only its statistics.
        signed: Whether it may fall below zero, as every estimate does that is right on average.
    """

    name: str
    against: Callable[[Reference], Measure]
    needs_features: bool = False
    signed: bool = False

    def __call__(self, features: Tensor, reference: Reference) -> float:
        """Distance of features (N, D) to the reference.

        Raises:
            InputError: If the reference lacks the features that the estimator needs.
            ValueError: If there are too few rows, the dimensions differ or a value is not finite.
        """
        return self.against(reference)(features)


def estimator(name: str) -> Estimator:
    """The estimator of that name.

    Raises:
        InputError: If there is none.
    """
    if name in _KERNELS:
        return _KERNELS[name]
    match = _FRECHET.fullmatch(name)
    # What shrinkage adds does not fall as 1 / N, so it cannot be extrapolated.
    if match is None or (match["shrunk"] and match["infinity"]):
        raise InputError(f"there is no distance called {name!r}{did_you_mean(name, NAMES)}")
    components = int(match["components"]) if match["components"] else None
    kind = _infinity if match["infinity"] else _shrunk if match["shrunk"] else _plain
    return Estimator(name, lambda reference: _along(components, kind, reference), signed=bool(match["infinity"]))


def leading_directions(gaussian: Gaussian, components: int) -> Tensor:
    """The (D, K) orthonormal directions of greatest variance, K = min(components, D)."""
    directions: Tensor = torch.linalg.eigh(gaussian.covariance)[1]
    return directions[:, -components:]


def _along(components: int | None, kind: Callable[[Gaussian], Measure], reference: Reference) -> Measure:
    """The measure ``kind``, along the reference's leading directions where their number is given."""
    if components is None:
        return kind(reference.gaussian)
    basis = leading_directions(reference.gaussian, components)
    measure = kind(reference.gaussian.project(basis))
    return Measure(lambda features: _rows(features, len(basis)) @ basis, measure.of_rows)


def _plain(gaussian: Gaussian) -> Measure:
    return Measure(lambda features: _rows(features, len(gaussian.mean)), Anchor(gaussian).subset_distances)


def _shrunk(gaussian: Gaussian) -> Measure:
    def of_rows(prepared: Tensor, rows: Tensor) -> Tensor:
        batch = max(1, _VALUES // (rows.shape[1] * prepared.shape[1]))
        return torch.cat([distances(*moments(prepared[part]), gaussian) for part in torch.split(rows, batch)])

    return Measure(lambda features: _rows(features, len(gaussian.mean)), of_rows)


def _infinity(gaussian: Gaussian) -> Measure:
    anchor = Anchor(gaussian)

    def of_rows(prepared: Tensor, rows: Tensor) -> Tensor:
        return torch.tensor([extrapolate(prepared[part], anchor).value for part in rows], dtype=torch.float64)

    return Measure(lambda features: _rows(features, len(gaussian.mean)), of_rows)


def _rows(features: Tensor, dimensions: int) -> Tensor:
    """The features in float64, if there are as many numbers in each as in the reference's."""
    rows = double_rows(features)
    if rows.shape[1] != dimensions:
        raise ValueError(f"Features of {rows.shape[1]} and of {dimensions} dimensions come from different networks.")
    return rows


def _kernel(
    name: str, kernel: Kernel, prepare: Callable[[Tensor], Tensor], *, biased: bool, scale: float = 1.0
) -> Estimator:
    def against(reference: Reference) -> Measure:
        sample = prepare(reference.sample())
        similarity = self_similarity(sample, kernel, biased=biased)

        def of_rows(prepared: Tensor, rows: Tensor) -> Tensor:
            return scale * selected_mmd(prepared, rows, sample, kernel, biased=biased, y_similarity=similarity)

        return Measure(prepare, of_rows)

    return Estimator(name, against, needs_features=True, signed=not biased)


_KERNELS = {
    kind.name: kind
    for kind in (
        _kernel("kid", polynomial_kernel, double_rows, biased=False),
        _kernel("cmmd", gaussian_kernel, unit_rows, biased=True, scale=SCALE),
        _kernel("cmmd-unbiased", gaussian_kernel, unit_rows, biased=False, scale=SCALE),
    )
}
