"""What pictures scored one by one: a policy's, and the full run's with what bad pictures would score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from autotune.quality.alignment import prompt_alignment
from autotune.quality.tensors import check_finite

__all__ = ["COARSE_SIDE", "Baseline", "Evaluation", "coarse"]

COARSE_SIDE = 16
"""Pixels a side of a picture that shows no more than a rough impression."""


def coarse(pictures: Tensor) -> Tensor:
    """Pictures (N, 3, H, W) uint8 reduced to 16 pixels a side and enlarged again: what a spoiled picture looks like.

    Of pictures with fewer than 64 pixels a side a quarter of them is left.
    """
    values = pictures.float()
    height, width = (max(1, min(COARSE_SIDE, side // 4)) for side in pictures.shape[-2:])
    small = F.interpolate(values, (height, width), mode="area")
    large = F.interpolate(small, pictures.shape[-2:], mode="bilinear")
    return large.round().clamp(0, 255).to(torch.uint8)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one policy's pictures scored, row i belonging to prompt i of a fixed list.

    Attributes:
        features: (N, D) image features.
        alignment: (N,) cosine of each picture with its prompt; None where there are no prompts to match.
        errors: Of each judge of pairs (n,) or, signed, (n, D), n <= N: the first pictures' differences from those
            of the exact run of the same intent.
        further: What other judges give, by their names: features (N, D) or, of C places in a picture, (N, C, D), or
            numbers (N,).

    Raises:
        ValueError: If the shapes do not fit each other or a value is not finite.
    """

    features: Tensor
    alignment: Tensor | None = None
    errors: Mapping[str, Tensor] = field(default_factory=dict)
    further: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        aligned = () if self.alignment is None else tuple(self.alignment.shape)
        if self.features.ndim != 2 or (self.alignment is not None and aligned != self.features.shape[:1]):
            raise ValueError(
                f"Features (N, D) go with alignments (N,), not {tuple(self.features.shape)} with {aligned}."
            )
        _check_judged(len(self.features), self.errors, self.further)
        given = {"features": self.features, "alignment": self.alignment}
        given |= {f"judgements by {name}": values for name, values in (*self.errors.items(), *self.further.items())}
        for name, values in given.items():
            if values is None:
                continue
            bad = (~values.reshape(len(values), -1).isfinite().all(1)).nonzero()
            if len(bad):
                raise ValueError(f"The {name} of picture {int(bad[0])} (and {len(bad) - 1} more) are not finite.")

    def __len__(self) -> int:
        return len(self.features)

    def head(self, count: int) -> Evaluation:
        """What the first ``count`` pictures scored."""
        alignment = None if self.alignment is None else self.alignment[:count]
        return Evaluation(self.features[:count], alignment, _head(self.errors, count), _head(self.further, count))

    @staticmethod
    def of(image_features: Tensor, text_features: Tensor) -> Evaluation:
        """The evaluation of pictures whose features (N, D) match the prompts' features (N, D) row by row."""
        return Evaluation(image_features, prompt_alignment(image_features, text_features))


@dataclass(frozen=True, eq=False)
class Baseline:
    """The full run on a list of prompts, and what bad pictures would score there.

    Attributes:
        full: The full run's evaluation.
        coarse: (N, D) features of its pictures after :func:`coarse`.
        chance: (N,) its pictures' mean alignment with the other prompts; None where there are none.
        prompts: What each of the N pictures was asked for, such as its prompt; those that repeat are resampled
            together.
        coarse_errors: What judges of pairs find between coarse and full pictures, (n,) or (n, D) each, n <= N.
        coarse_further: What other judges give of the coarse pictures, as ``full.further``.

    Raises:
        ValueError: If the shapes do not fit each other or a value is not finite.
    """

    full: Evaluation
    coarse: Tensor
    chance: Tensor | None
    prompts: tuple[str, ...]
    coarse_errors: Mapping[str, Tensor] = field(default_factory=dict)
    coarse_further: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.full)
        chances = None if self.chance is None else tuple(self.chance.shape)
        aligned = None if self.full.alignment is None else (n,)
        if self.coarse.shape != self.full.features.shape or chances != aligned or len(self.prompts) != n:
            raise ValueError(
                f"{n} pictures of the full run go with coarse features of the same shape and as many chances and "
                f"prompts, not {tuple(self.coarse.shape)}, {chances} and {len(self.prompts)}."
            )
        _check_judged(n, self.coarse_errors, self.coarse_further)
        check_finite(self.coarse, "coarse features")
        for name, values in (*self.coarse_errors.items(), *self.coarse_further.items()):
            check_finite(values, f"judgements of coarse pictures by {name}")
        if self.chance is not None:
            check_finite(self.chance, "alignment by chance")

    def head(self, count: int) -> Baseline:
        """The full run on the first ``count`` pictures."""
        chance = None if self.chance is None else self.chance[:count]
        return Baseline(
            self.full.head(count),
            self.coarse[:count],
            chance,
            self.prompts[:count],
            _head(self.coarse_errors, count),
            _head(self.coarse_further, count),
        )


def _check_judged(pictures: int, errors: Mapping[str, Tensor], further: Mapping[str, Tensor]) -> None:
    """Refuse judgements that are not of so many pictures, or errors that are not of the first of them.

    Raises:
        ValueError: They are not.
    """
    for name, values in errors.items():
        if values.ndim not in (1, 2) or not 0 < len(values) <= pictures:
            raise ValueError(f"Errors by {name} are of the first of {pictures} pictures, not {tuple(values.shape)}.")
    for name, values in further.items():
        if values.ndim not in (1, 2, 3) or len(values) != pictures:
            raise ValueError(f"Judgements by {name} are of {pictures} pictures, not {tuple(values.shape)}.")


def _head(judged: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    return {name: values[:count] for name, values in judged.items()}
