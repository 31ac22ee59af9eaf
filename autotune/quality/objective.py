"""The one number the search lowers, and how sure it is.

    loss = weight_fd * (FD / FD_full - 1) + weight_clip * (A_full - A) / (A_full - A_shuffled)

FD is the Frechet distance of a candidate's image features to the reference, A its mean alignment;
*full* is the full run on the same prompts and seeds, *shuffled* its alignment with the wrong prompts.
Both terms are free of units and zero for the full run. Lower is better; a candidate may fall below
zero. One in the first term is a distance twice the full run's; one in the second, pictures that
match their prompts no better than chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from autotune.quality.alignment import prompt_alignment, shuffled_alignment
from autotune.quality.frechet import Gaussian, distances, moments

__all__ = ["Evaluation", "Interval", "Intervals", "Objective", "Score"]

# Resamples measured at once: 4 MB with 160 prompts and 32 components, which stay in the processor's cache.
_CHUNK = 100


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one policy's pictures scored, row i belonging to prompt i of a fixed list.

    Attributes:
        features: (N, D) image features, L2-normalised.
        alignment: (N,) cosine of each picture with its prompt.

    Raises:
        ValueError: If the shapes do not fit each other or a value is not finite.
    """

    features: Tensor
    alignment: Tensor

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.alignment.shape != self.features.shape[:1]:
            raise ValueError(
                f"Features (N, D) go with alignments (N,), not {tuple(self.features.shape)} "
                f"with {tuple(self.alignment.shape)}."
            )
        for name, values in (("features", self.features), ("alignment", self.alignment)):
            bad = (~values.reshape(len(values), -1).isfinite().all(1)).nonzero()
            if len(bad):
                raise ValueError(f"The {name} of picture {int(bad[0])} (and {len(bad) - 1} more) are not finite.")

    @staticmethod
    def of(image_features: Tensor, text_features: Tensor) -> Evaluation:
        """The evaluation of pictures whose features (N, D) match the prompts' features (N, D) row by row."""
        return Evaluation(image_features, prompt_alignment(image_features, text_features))


@dataclass(frozen=True)
class Score:
    """One policy's result. ``loss`` and ``fd``: lower is better; ``alignment``: higher is better."""

    loss: float
    fd: float
    alignment: float


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval that holds the truth at the level asked for."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """The intervals that belong to a ``Score``."""

    loss: Interval
    fd: Interval
    alignment: Interval


class Objective:
    """Scores evaluations against the full run on the same prompts and seeds.

    Every distance here, not only those in the bootstrap, is taken along the reference's ``components``
    leading principal directions, with a shrunk covariance. A covariance of 128 dimensions has 8,256
    free values; 160 pictures, of which a bootstrap sample holds about 100 different ones, leave it
    singular. 32 dimensions have 528 values, which so few pictures do determine, and they keep 99 % of
    the emoji reference's variance: on samples of 160 pictures, 16 to 128 dimensions told blurred, noisy
    and blended pictures from clean ones equally reliably. The distance of few pictures is biased
    upwards all the same (real pictures do not score zero): compare only evaluations of the same length.

    Args:
        reference: Gaussian of the image features that good pictures have.
        full: The full run's evaluation.
        text_features: (N, D), of the prompts of ``full``, row by row.
        weight_fd: Weight of the distance in the loss.
        weight_clip: Weight of the alignment in the loss.
        components: Principal directions kept, at most D.

    Raises:
        ValueError: If shapes differ, or the full run's pictures match their prompts no better than
            chance (the scoring model does not know what the prompts speak of).
    """

    def __init__(
        self,
        reference: Gaussian,
        full: Evaluation,
        text_features: Tensor,
        *,
        weight_fd: float = 1.0,
        weight_clip: float = 1.0,
        components: int = 32,
    ) -> None:
        if reference.mean.shape != full.features.shape[1:]:
            raise ValueError(
                f"The reference has {len(reference.mean)} dimensions, the features have {full.features.shape[1]}: "
                "they come from different scoring models."
            )
        _, directions = torch.linalg.eigh(reference.covariance)
        self._basis = directions[:, -components:]
        self._reference = reference.project(self._basis)
        self._weight_fd, self._weight_clip = weight_fd, weight_clip
        self._full = full
        self._rows_of_prompt = _rows_of_prompt(text_features)
        self._full_features = self._project(full)
        self._full_alignment = full.alignment.cpu().double()
        self._chance = shuffled_alignment(full.features.cpu().double(), text_features.cpu().double())
        if self._full_alignment.mean() <= self._chance.mean():
            raise ValueError(
                f"The full run's pictures match their prompts (alignment {float(self._full_alignment.mean()):.3f}) no "
                f"better than other prompts ({self.chance:.3f}): score with a model that knows such prompts."
            )

    @property
    def chance(self) -> float:
        """Alignment of the full run's pictures with the wrong prompts."""
        return float(self._chance.mean())

    def score(self, evaluation: Evaluation) -> Score:
        """The loss and what it is made of; the full run itself scores a loss of exactly zero.

        Raises:
            ValueError: If the evaluation is not of as many prompts as the full run.
        """
        everything = torch.arange(len(self._chance))[None]
        loss, fd, alignment = self._measure(evaluation, everything)
        return Score(float(loss), float(fd), float(alignment))

    def interval(
        self, evaluation: Evaluation, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Intervals:
        """Percentile bootstrap over prompts (Efron and Tibshirani 1993, chapter 13).

        The full run is resampled with the same prompts, so luck that both share cancels in the loss.
        A resample repeats pictures, which raises its distance once more by the bias that few pictures
        cause; the replicates are therefore moved so that their mean is the estimate.
        """
        score = self.score(evaluation)
        chunks = [self._measure(evaluation, rows) for rows in self._resample(resamples, seed)]
        loss, fd, alignment = (torch.cat(values) for values in zip(*chunks, strict=True))
        return Intervals(
            _interval(score.loss, loss, level),
            _interval(score.fd, fd, level),
            _interval(score.alignment, alignment, level),
        )

    def compare(
        self, a: Evaluation, b: Evaluation, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """The difference loss(a) - loss(b): negative where ``a`` is better, an interval without zero where it is clear.

        Both are resampled with the same prompts, which is much sharper than two intervals side by side.
        """
        estimate = self.score(a).loss - self.score(b).loss
        differences = [
            self._measure(a, rows)[0] - self._measure(b, rows)[0] for rows in self._resample(resamples, seed)
        ]
        return _interval(estimate, torch.cat(differences), level)

    def _project(self, evaluation: Evaluation) -> Tensor:
        projected: Tensor = evaluation.features.cpu().double() @ self._basis
        return projected

    def _resample(self, resamples: int, seed: int) -> Iterator[Tensor]:
        """Row numbers (at most _CHUNK, N): prompts drawn with replacement, each with all of its rows."""
        generator = torch.Generator().manual_seed(seed)
        prompts = len(self._rows_of_prompt)
        for start in range(0, resamples, _CHUNK):
            drawn = torch.randint(prompts, (min(_CHUNK, resamples - start), prompts), generator=generator)
            yield self._rows_of_prompt[drawn].flatten(1)

    def _measure(self, evaluation: Evaluation, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, distance and alignment (B,) on each of B selections ``rows`` (B, N) of the prompts."""
        if evaluation.features.shape != self._full.features.shape:
            raise ValueError(
                f"Features {tuple(evaluation.features.shape)} cannot be compared with the full run's "
                f"{tuple(self._full.features.shape)}: evaluate the same prompts with the same scoring model."
            )
        fd, fd_full = (self._distance(x[rows]) for x in (self._project(evaluation), self._full_features))
        alignment = evaluation.alignment.cpu().double()[rows].mean(1)
        alignment_full = self._full_alignment[rows].mean(1)
        margin = alignment_full - self._chance[rows].mean(1)
        loss = self._weight_fd * (fd / fd_full - 1) + self._weight_clip * (alignment_full - alignment) / margin
        return loss, fd, alignment

    def _distance(self, features: Tensor) -> Tensor:
        """Distances (B,) to the reference of projected features (B, N, K)."""
        return distances(*moments(features), self._reference)


def _rows_of_prompt(text_features: Tensor) -> Tensor:
    """Row numbers (P, N / P) of each of P prompts; (N, 1) where prompts have different numbers of rows.

    Pictures of one prompt are alike: a bootstrap that took them for independent would be too sure.
    """
    _, prompt_of_row, counts = torch.unique(text_features.cpu(), dim=0, return_inverse=True, return_counts=True)
    if len(counts.unique()) > 1:
        return torch.arange(len(text_features))[:, None]
    rows: Tensor = prompt_of_row.argsort(stable=True).reshape(len(counts), -1)
    return rows


def _interval(estimate: float, replicates: Tensor, level: float) -> Interval:
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=replicates.dtype)
    low, high = (replicates.quantile(tails) - replicates.mean() + estimate).tolist()
    return Interval(estimate, low, high)
