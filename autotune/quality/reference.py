"""What good pictures look like: the statistics, and a sample of the features, that distances are measured to."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality.frechet import Gaussian, fit
from autotune.quality.tensors import check_finite, write_tensors

__all__ = ["Reference"]


@dataclass(frozen=True, eq=False)
class Reference:
    """A reference for any estimator: Frechet distances need the Gaussian, kernel distances the features.

    Attributes:
        gaussian: Mean and covariance of all its pictures.
        features: (M, D) float32, of all its pictures or a random part of them; None where only statistics
            are known.

    Raises:
        ValueError: If the shapes do not fit each other or a value is not finite.
    """

    gaussian: Gaussian
    features: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features is None:
            return
        if self.features.ndim != 2 or self.features.shape[1] != len(self.gaussian.mean) or len(self.features) < 2:
            raise ValueError(
                f"A Gaussian of {len(self.gaussian.mean)} dimensions goes with two or more features of as many, "
                f"not {tuple(self.features.shape)}."
            )
        check_finite(self.features, "reference features")

    @staticmethod
    def of(features: Tensor, *, shrink: bool = False, keep: int = 2048, seed: int = 0) -> Reference:
        """The reference made of pictures with these features.

        Args:
            features: (N, D), at least two rows.
            shrink: Regularise the covariance, as ``fit`` does; published Frechet distances do not.
            keep: The most features kept; memory and time of kernel distances grow with their square.
            seed: Which ones are kept if there are more.

        Raises:
            ValueError: If there are fewer than two rows or a value is not finite.
        """
        gaussian = fit(features, shrink=shrink)
        rows = features.detach().cpu()
        if len(rows) > keep:
            drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:keep]
            rows = rows[drawn.sort().values]
        return Reference(gaussian, rows.float())

    def sample(self) -> Tensor:
        """The features (M, D).

        Raises:
            InputError: If only statistics are known.
        """
        if self.features is None:
            raise InputError(
                "This reference holds statistics alone, and kernel distances need features: make it from pictures "
                "again, or take a Frechet distance."
            )
        return self.features

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, which ``Gaussian.load`` reads as well."""
        tensors = {"mean": self.gaussian.mean, "covariance": self.gaussian.covariance}
        if self.features is not None:
            tensors["features"] = self.features
        write_tensors(path, tensors, {"n": str(self.gaussian.n)})

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Reference:
        """Read what ``save`` or ``Gaussian.save`` wrote.

        Raises:
            InputError: If the file is missing, damaged or something else.
        """
        from safetensors import safe_open

        gaussian = Gaussian.load(path)
        try:
            with safe_open(path, framework="pt") as file:
                return Reference(gaussian, file.get_tensor("features") if "features" in file.keys() else None)
        except ValueError as error:
            raise InputError(f"{path} holds no usable reference features: {error}") from error
