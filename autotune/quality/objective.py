"""The one number the search lowers, and how sure it is.

    loss = weight_fd       * (D - D_full) / (D_coarse - D_full)
         + weight_clip     * (A_full - A) / (A_full - A_shuffled)
         + weight_fidelity * F / F_coarse

D is the distance of a candidate's image features to the reference, A its mean alignment with its prompts,
F its mean feature distance to the full run's pictures of the same prompts from the same noise. *Full* is the
full run on these prompts and seeds, *coarse* its pictures with 16 pixels a side, *shuffled* its alignment with
the wrong prompts.

Every term is zero for the full run, has no unit, and is one where its side of the pictures is lost: as far
from the reference (or from the full run's pictures) as mere 16-pixel impressions, or matching prompts no better
than chance. That makes losses of different models, scorers and distances comparable. Lower is better; the
first two terms may fall below zero. The default judges quality (weights 1, 4, 0): of few pictures the alignment
is known far better than the distance, which is there to see what alignment is blind to, above all
pictures that grow alike. ``FIDELITY`` asks for the pictures one had (0, 0, 1).
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality.bootstrap import Interval, interval, resampled, rows_of_prompt
from autotune.quality.estimators import Measure, estimator
from autotune.quality.evaluations import Baseline, Evaluation
from autotune.quality.fidelity import feature_distances
from autotune.quality.reference import Reference
from autotune.quality.tensors import check_finite

__all__ = ["DISTANCE", "FIDELITY", "QUALITY", "Intervals", "Objective", "Score", "Weights"]

DISTANCE = "frechet-subspace-32"
"""The estimator of the distance that, with ``QUALITY``'s weights, ranks best in ``studies.proxy.estimators``."""


@dataclass(frozen=True)
class Weights:
    """Weights of the loss's three terms; see the head of this module."""

    fd: float = 1.0
    clip: float = 4.0
    fidelity: float = 0.0


QUALITY = Weights()
FIDELITY = Weights(0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Score:
    """One policy's result. ``alignment``: higher is better; all others: lower is better.

    Attributes:
        loss: The objective.
        distance: To the reference, in the estimator's unit.
        alignment: Mean cosine with the prompts; None where there are none.
        fidelity: Mean feature distance to the full run's pictures, 0 to 2.
    """

    loss: float
    distance: float
    alignment: float | None
    fidelity: float


@dataclass(frozen=True)
class Intervals:
    """The intervals that belong to a ``Score``."""

    loss: Interval
    distance: Interval
    alignment: Interval | None
    fidelity: Interval


@dataclass(frozen=True)
class _Terms:
    """Loss and what it is made of, each (B,), for B selections of the prompts; no alignment where there are none."""

    loss: Tensor
    distance: Tensor
    alignment: Tensor | None
    fidelity: Tensor

    @staticmethod
    def joined(parts: Sequence[_Terms]) -> _Terms:
        """Of all selections, from some at a time."""
        aligned = [part.alignment for part in parts if part.alignment is not None]
        return _Terms(
            torch.cat([part.loss for part in parts]),
            torch.cat([part.distance for part in parts]),
            torch.cat(aligned) if aligned else None,
            torch.cat([part.fidelity for part in parts]),
        )


class Objective:
    """Scores evaluations against the full run on the same prompts and seeds.

    The distance of few pictures is biased upwards for most estimators (real pictures do not score zero):
    only evaluations of the same prompts are compared, where that cancels.

    Args:
        reference: Features that good pictures have.
        baseline: The full run and the anchors of what is bad.
        distance: Name of the estimator, see :mod:`autotune.quality.estimators`.
        weights: Of the loss's terms.

    Raises:
        InputError: If there is no such estimator, or the reference lacks the features it needs; if dimensions differ,
            alignment has a weight and there is none, the full run's pictures match their prompts no better than
            chance (the scoring model does not know what the prompts speak of), or coarse pictures are no farther
            from the reference than the full run's (the reference shows something else).
    """

    def __init__(
        self, reference: Reference, baseline: Baseline, *, distance: str = DISTANCE, weights: Weights = QUALITY
    ) -> None:
        if reference.gaussian.mean.shape != baseline.full.features.shape[1:]:
            raise InputError(
                f"The reference has {len(reference.gaussian.mean)} dimensions, the features have "
                f"{baseline.full.features.shape[1]}: they come from different scoring models."
            )
        self.distance = distance
        self.weights = weights
        self._measure: Measure = estimator(distance).against(reference)
        self._baseline = baseline
        self._rows_of_prompt = rows_of_prompt(baseline.prompts)
        self._full = self._measure.prepare(baseline.full.features)
        self._full_alignment = _numbers(baseline.full.alignment)
        self._remember()
        of_full, alignment = self._full_at(self._all)
        full, bad = float(of_full), self._measure(baseline.coarse)
        matched, chance = 0.0 if alignment is None else float(alignment), self.chance
        if alignment is None and weights.clip:
            raise InputError("Pictures without prompts have no alignment: give it no weight.")
        if matched <= chance and weights.clip:
            raise InputError(
                f"The full run's pictures match their prompts (alignment {matched:.3f}) no "
                f"better than other prompts ({chance:.3f}): score with a model that knows such prompts."
            )
        if bad <= full and weights.fd:
            raise InputError(
                f"The full run's pictures are as far from the reference ({full:.4g}) as 16-pixel impressions of them "
                f"({bad:.4g}): give a reference that shows what the prompts ask for, or weigh the distance with 0."
            )
        # What one in each term stands for.
        self._wholes = Weights(
            bad - full, matched - chance, float(feature_distances(baseline.coarse, baseline.full.features).mean())
        )

    @property
    def chance(self) -> float:
        """Alignment of the full run's pictures with the wrong prompts; 0 where there are no prompts."""
        chance = _numbers(self._baseline.chance)
        return 0.0 if chance is None else float(chance.mean())

    def score(self, evaluation: Evaluation) -> Score:
        """The loss and what it is made of; the full run itself scores a loss of exactly zero.

        Raises:
            ValueError: If the evaluation is not of as many prompts as the full run.
        """
        terms = self._terms(self._values(evaluation), self._all, self._full_at(self._all))
        alignment = None if terms.alignment is None else float(terms.alignment)
        return Score(float(terms.loss), float(terms.distance), alignment, float(terms.fidelity))

    def interval(
        self, evaluation: Evaluation, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Intervals:
        """Percentile bootstrap over prompts (Efron and Tibshirani 1993, chapter 13).

        The full run is resampled with the same prompts, so luck that both share cancels in the loss; what bad
        pictures score is not, for it only sets the unit. A resample repeats pictures, which raises its distance
        once more by the bias that few pictures cause; the replicates are therefore moved so that their mean is
        the estimate.
        """
        score = self.score(evaluation)
        terms = self._replicates(evaluation, resamples, seed)
        alignment = None
        if score.alignment is not None and terms.alignment is not None:
            alignment = interval(score.alignment, terms.alignment, level)
        return Intervals(
            interval(score.loss, terms.loss, level),
            interval(score.distance, terms.distance, level),
            alignment,
            interval(score.fidelity, terms.fidelity, level),
        )

    def compare(
        self, a: Evaluation, b: Evaluation, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Interval:
        """The difference loss(a) - loss(b): negative where ``a`` is better, an interval without zero where it is clear.

        Both are resampled with the same prompts, which is much sharper than two intervals side by side.
        """
        estimate = self.score(a).loss - self.score(b).loss
        difference = self._replicates(a, resamples, seed).loss - self._replicates(b, resamples, seed).loss
        return interval(estimate, difference, level)

    def head(self, count: int) -> Objective:
        """The same objective on the first ``count`` pictures alone: what a candidate scores before all are made.

        Losses keep their unit, which is taken from all pictures; they are those of fewer pictures, and to be
        compared with losses of the same ones only.

        Raises:
            ValueError: If there are not so many pictures.
        """
        pictures = len(self._baseline.prompts)
        if not 0 < count <= pictures:
            raise ValueError(f"There are {pictures} pictures, of which no first {count} can be taken.")
        return self if count == pictures else self._heads(count)

    def _head(self, count: int) -> Objective:
        head = copy.copy(self)
        head._baseline = self._baseline.head(count)
        head._rows_of_prompt = rows_of_prompt(head._baseline.prompts)
        head._full = self._measure.prepare(head._baseline.full.features)
        head._full_alignment = _numbers(head._baseline.full.alignment)
        head._remember()
        return head

    def _remember(self) -> None:
        """Keep what every candidate asks for again."""
        self._full_of_resamples = functools.lru_cache(maxsize=2)(self._full_resampled)
        self._heads = functools.lru_cache(maxsize=8)(self._head)

    def mean(self, values: Tensor, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Interval:
        """Mean of a number per picture, and its interval over the same resamples of the prompts as every other score's.

        Args:
            values: (N,), one per prompt in the order of the baseline's, such as the PSNR to the full run's picture.
            resamples: Bootstrap replicates.
            level: Probability that the interval holds the mean over all such prompts.
            seed: Of the resampling.

        Raises:
            ValueError: If there is not one finite number per prompt.
        """
        pictures = len(self._baseline.prompts)
        if values.shape != (pictures,):
            raise ValueError(f"Expected a number for each of {pictures} pictures, not {tuple(values.shape)}.")
        check_finite(values, "numbers")
        rows = values.cpu().double()
        replicates = torch.cat([rows[drawn].mean(1) for drawn in self._resample(resamples, seed)])
        return interval(float(rows.mean()), replicates, level)

    @property
    def _all(self) -> Tensor:
        return torch.arange(len(self._baseline.prompts))[None]

    def _resample(self, resamples: int, seed: int) -> Iterator[Tensor]:
        return resampled(self._rows_of_prompt, resamples, seed)

    def _replicates(self, evaluation: Evaluation, resamples: int, seed: int) -> _Terms:
        full, values = self._full_of_resamples(resamples, seed), self._values(evaluation)
        return _Terms.joined(
            [self._terms(values, rows, at) for rows, at in zip(self._resample(resamples, seed), full, strict=True)]
        )

    def _full_resampled(self, resamples: int, seed: int) -> list[tuple[Tensor, Tensor | None]]:
        """The same for every candidate, and half of the work: kept."""
        return [self._full_at(rows) for rows in self._resample(resamples, seed)]

    def _full_at(self, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """Distance and alignment of the full run, (B,) each, on selections ``rows`` (B, N) of the prompts."""
        return self._measure.of_rows(self._full, rows), _means(self._full_alignment, rows)

    def _values(self, evaluation: Evaluation) -> tuple[Tensor, Tensor | None, Tensor]:
        """Prepared features (N, K), alignment (N,) and distance to the full run's features (N,)."""
        full = self._baseline.full.features
        if evaluation.features.shape != full.shape:
            raise ValueError(
                f"Features {tuple(evaluation.features.shape)} cannot be compared with the full run's "
                f"{tuple(full.shape)}: evaluate the same prompts with the same scoring model."
            )
        if (evaluation.alignment is None) != (self._full_alignment is None):
            raise ValueError("Alignments are known of the full run or of the other pictures alone: judge both alike.")
        fidelity = feature_distances(evaluation.features, full)
        return self._measure.prepare(evaluation.features), _numbers(evaluation.alignment), fidelity

    def _terms(
        self, values: tuple[Tensor, Tensor | None, Tensor], rows: Tensor, full: tuple[Tensor, Tensor | None]
    ) -> _Terms:
        """Loss and its terms on each of B selections ``rows`` (B, N) of the prompts, given the full run's there."""
        distance_full, alignment_full = full
        features, alignments, fidelities = values
        distance = self._measure.of_rows(features, rows)
        alignment, fidelity = _means(alignments, rows), fidelities[rows].mean(1)
        terms = [
            (self.weights.fd, distance - distance_full, self._wholes.fd),
            (self.weights.fidelity, fidelity, self._wholes.fidelity),
        ]
        if alignment is not None and alignment_full is not None:
            terms.insert(1, (self.weights.clip, alignment_full - alignment, self._wholes.clip))
        loss = torch.stack([weight * lost / whole for weight, lost, whole in terms if weight]).sum(0)
        return _Terms(loss, distance, alignment, fidelity)


def _numbers(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.cpu().double()


def _means(values: Tensor | None, rows: Tensor) -> Tensor | None:
    """(B,) of the values at each of B selections ``rows`` (B, N)."""
    return None if values is None else values[rows].mean(1)
