"""The one number the search lowers, and how sure it is.

    loss = sum over judges of weight * (number of the candidate - number of the full run) / unit

Among the judges (:mod:`autotune.quality.panel`) are ``distance``, that of a candidate's image features to the
reference; ``alignment``, its mean with its prompts, where higher is better; ``error``, the mean difference of its first
pictures from those of the exact run of the same intent; ``fidelity``, its mean feature distance to the full run's
pictures of the same prompts from the same noise. *Full* is the full run on these prompts and seeds, *coarse* its
pictures with 16 pixels a side, *shuffled* its alignment with the wrong prompts.

Every term is zero for the full run, has no unit, and is one where its side of the pictures is lost: as far
from the reference (or from the exact run's pictures) as mere 16-pixel impressions, or matching prompts no better
than chance. That makes losses of different models, scorers and distances comparable. Lower is better; distances and
alignments may fall below zero. Of few pictures the alignment is known far better than the distance, which is there to
see what alignment is blind to, above all pictures that grow alike; the error sees what reuse does to small parts.

The module is longer than most: all that is asked of an objective (scores, intervals, comparisons, verdicts) is of the
same terms on selections of the same prompts.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.core.interval import Interval
from autotune.quality.bootstrap import interval, resampled, rows_of_prompt
from autotune.quality.estimators import Measure, estimator
from autotune.quality.evaluations import Baseline, Evaluation
from autotune.quality.panel import ALIGNMENT, JUDGES, Panel
from autotune.quality.panel import DISTANCE as DISTANCE_JUDGE
from autotune.quality.panel import FIDELITY as FIDELITY_JUDGE
from autotune.quality.reference import Reference
from autotune.quality.scores import QUALITY, Intervals, Score, Weights
from autotune.quality.simultaneous import leave_one_out, pseudo_values, verdict
from autotune.quality.tensors import check_finite
from autotune.quality.terms import Term, terms_of, units_of
from autotune.quality.verdict import Verdict

LEAST_OF_DISTANCE = 64
"""Pictures before which candidates are not told apart by distances of distributions."""

# Selections of pictures measured at once.
_SELECTIONS = 100

__all__ = ["DISTANCE", "Objective"]

DISTANCE = "frechet-subspace-32"
"""The estimator of the distance that, with ``QUALITY``'s weights, ranks best in ``studies.proxy.estimators``."""


@dataclass(frozen=True)
class _Found:
    """Loss and what it is made of, each (B,), for B selections of the prompts.

    Attributes:
        loss: The objective.
        numbers: By judge, in its own unit.
        lost: By judge: 0 is the full run, 1 is lost.
    """

    loss: Tensor
    numbers: Mapping[str, Tensor]
    lost: Mapping[str, Tensor]

    @staticmethod
    def joined(parts: Sequence[_Found]) -> _Found:
        """Of all selections, from some at a time."""
        return _Found(
            torch.cat([part.loss for part in parts]),
            {name: torch.cat([part.numbers[name] for part in parts]) for name in parts[0].numbers},
            {name: torch.cat([part.lost[name] for part in parts]) for name in parts[0].lost},
        )


class Objective:
    """Scores evaluations against the full run on the same prompts and seeds.

    The distance of few pictures is biased upwards for most estimators (real pictures do not score zero):
    only evaluations of the same prompts are compared, where that cancels.

    Args:
        reference: Features that good pictures have.
        baseline: The full run and the anchors of what is bad.
        distance: Name of the estimator, see :mod:`autotune.quality.estimators`.
        weights: The panel of judges, or the weights of the three terms that need no exact runs.
        references: What good pictures have for further judges of distributions, by their names.

    Raises:
        InputError: If there is no such estimator, or the reference lacks the features it needs; if dimensions differ,
            alignment has a weight and there is none, the full run's pictures match their prompts no better than
            chance (the scoring model does not know what the prompts speak of), or coarse pictures are no farther
            from the reference than the full run's (the reference shows something else).
    """

    def __init__(
        self,
        reference: Reference,
        baseline: Baseline,
        *,
        distance: str = DISTANCE,
        weights: Weights | Panel = QUALITY,
        references: Mapping[str, Reference] | None = None,
    ) -> None:
        if reference.gaussian.mean.shape != baseline.full.features.shape[1:]:
            raise InputError(
                f"The reference has {len(reference.gaussian.mean)} dimensions, the features have "
                f"{baseline.full.features.shape[1]}: they come from different scoring models."
            )
        self.distance = distance
        self.panel = weights.panel if isinstance(weights, Weights) else weights
        self._measures: dict[str, Measure] = {DISTANCE_JUDGE: estimator(distance).against(reference)}
        for name in self.panel.of_kind("distribution"):
            against = JUDGES[name].measure or estimator(distance).against
            self._measures[name] = against((references or {})[name])
        # What one in each term stands for.
        self._units = units_of(self.panel, baseline, self._measures)
        self._take(baseline)

    @property
    def baseline(self) -> Baseline:
        """The full run and the anchors of what is bad."""
        return self._baseline

    @property
    def count(self) -> int:
        """How many pictures evaluations are of."""
        return len(self._baseline.prompts)

    @property
    def chance(self) -> float:
        """Alignment of the full run's pictures with the wrong prompts; 0 where there are no prompts."""
        chance = self._baseline.chance
        return 0.0 if chance is None else float(chance.cpu().double().mean())

    def score(self, evaluation: Evaluation) -> Score:
        """The loss and what it is made of; the full run itself scores a loss of exactly zero.

        Raises:
            ValueError: If the evaluation is not of as many prompts as the full run.
        """
        found = self._found(self._values(evaluation), self._all, self._full_at(self._all))
        numbers = {name: float(number) for name, number in found.numbers.items()}
        error = self._error(found)
        return Score(
            float(found.loss),
            numbers[DISTANCE_JUDGE],
            numbers.get(ALIGNMENT),
            numbers[FIDELITY_JUDGE],
            None if error is None else float(error),
            {name: float(found.lost[name]) for name in self.panel.weights if name in found.lost},
        )

    def feasible(self, error: float | None) -> bool:
        """Whether an error, as :attr:`Score.error` has it, is no larger than the panel allows."""
        return self.panel.ceiling is None or error is None or error <= self.panel.ceiling

    def interval(
        self, evaluation: Evaluation, *, resamples: int = 1000, level: float = 0.95, seed: int = 0
    ) -> Intervals:
        """Percentile bootstrap over prompts (Efron and Tibshirani 1993, chapter 13).

        The full run is resampled with the same prompts, so luck that both share cancels in the loss; what bad
        pictures score is not, for it only sets the unit. A resample repeats pictures, which raises its distance
        once more by the bias that few pictures cause; the replicates are therefore moved so that their mean is
        the estimate.
        """
        score, found = self.score(evaluation), self._replicates(evaluation, resamples, seed)
        alignment, error = None, None
        if score.alignment is not None:
            alignment = interval(score.alignment, found.numbers[ALIGNMENT], level)
        errors = self._error(found)
        if score.error is not None and errors is not None:
            error = interval(score.error, errors, level)
        return Intervals(
            interval(score.loss, found.loss, level),
            interval(score.distance, found.numbers[DISTANCE_JUDGE], level),
            alignment,
            interval(score.fidelity, found.numbers[FIDELITY_JUDGE], level),
            error,
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

    def losses(self, evaluations: Sequence[Evaluation], rows: Tensor) -> Tensor:
        """Losses (B, K) of K evaluations on each of B selections ``rows`` (B, n) of the pictures."""
        values = [self._values(each) for each in evaluations]
        found = []
        for part in torch.split(rows, _SELECTIONS):
            full = self._full_at(part)
            found.append(torch.stack([self._found(each, part, full).loss for each in values], 1))
        return torch.cat(found)

    def jackknife(self, evaluations: Sequence[Evaluation]) -> Tensor:
        """Pseudo-values (P, K) of K evaluations' losses: what each of P prompts contributes to them.

        Where there is one prompt alone they are those of its pictures, which say nothing of other prompts.
        """
        rows = self._rows_of_prompt if len(self._rows_of_prompt) > 1 else self._all.T
        whole = self.losses(evaluations, self._all)[0]
        return pseudo_values(whole, self.losses(evaluations, leave_one_out(rows)))

    def verdict(
        self,
        finalists: Sequence[Evaluation],
        rival: Evaluation,
        *,
        best: int | None = None,
        level: float = 0.95,
        dropped: Sequence[Evaluation] = (),
    ) -> Verdict:
        """Whether the best of several finalists beats a rival, with an interval that allows for the choice.

        Args:
            finalists: At least one.
            rival: What they compete with.
            best: Place of the finalist that is judged, where another objective chose it; None is the best by this one.
            level: Of the interval.
            dropped: Finalists that there were besides, of the first pictures.
        """
        runs, judged = [*finalists, rival], self._judged
        if judged < len(self._baseline.prompts):
            first = [run.head(judged) for run in runs]
            return self.head(judged).verdict(first[:-1], first[-1], best=best, level=level, dropped=dropped)
        losses = self.losses(runs, self._all)[0]
        prompts = len(set(self._baseline.prompts))
        earlier = self._earlier(runs, dropped)
        return verdict(losses, self.jackknife(runs), prompts, best=best, level=level, earlier=earlier)

    def _earlier(self, runs: Sequence[Evaluation], dropped: Sequence[Evaluation]) -> Tensor | None:
        """Pseudo-values of ``runs``, and before the last of them of those dropped, on what all of them have made."""
        if not dropped:
            return None
        made = min(len(self._baseline.prompts), *map(len, dropped))
        return self.head(made).jackknife([run.head(made) for run in (*runs[:-1], *dropped, runs[-1])])

    def by(self, judge: str) -> Objective:
        """The same pictures before one judge alone, which this panel measures with whatever weight.

        Raises:
            InputError: It cannot tell the full run's pictures from bad ones.
        """
        return self._with(Panel({judge: 1.0}), self._baseline)

    def on(self, baseline: Baseline) -> Objective:
        """The same judges with the same references on other pictures, from which units are taken anew.

        Raises:
            InputError: They cannot tell the full run's pictures from bad ones.
        """
        return self._with(self.panel, baseline)

    def _with(self, panel: Panel, baseline: Baseline) -> Objective:
        other = copy.copy(self)
        other.panel = panel
        other._units = units_of(panel, baseline, self._measures)
        other._take(baseline)
        return other

    @property
    def _judged(self) -> int:
        """How many of the first pictures the loss is made of."""
        weighted = [name for name, weight in self.panel.weights.items() if weight]
        if any(name not in self.panel.errors for name in weighted):
            return len(self._baseline.prompts)
        return max(len(self._baseline.coarse_errors[name]) for name in weighted)

    def early(self, count: int) -> Objective:
        """:meth:`head`, but of few of all pictures without distances that need many, where judges of pairs are left.

        A Frechet distance of n pictures along as many directions is mostly bias, which is not the same for all
        policies: with 32 pictures, guidance in some steps only gains 0.1 to 0.3 that are gone with 64. Mean textures of
        eight pictures say the same as those of hundreds, but for the noise.
        """
        head = self.head(count)
        if count >= min(LEAST_OF_DISTANCE, self.count) or not self.panel.compares:
            return head
        weights = self.panel.weights.items()
        many = {name for name in self.panel.weights if JUDGES[name].kind == "distribution" and not JUDGES[name].few}
        kept = {name: 0.0 if name in many else weight for name, weight in weights}
        other = copy.copy(head)
        other.panel = Panel(kept, self.panel.ceiling)
        return other

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
        head._take(self._baseline.head(count))
        return head

    def _take(self, baseline: Baseline) -> None:
        """Keep what every candidate is compared with."""
        self._baseline = baseline
        self._rows_of_prompt = rows_of_prompt(baseline.prompts)
        self._terms: Mapping[str, Term] = terms_of(self.panel, baseline, self._measures)
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

    def _replicates(self, evaluation: Evaluation, resamples: int, seed: int) -> _Found:
        full, values = self._full_of_resamples(resamples, seed), self._values(evaluation)
        return _Found.joined(
            [self._found(values, rows, at) for rows, at in zip(self._resample(resamples, seed), full, strict=True)]
        )

    def _full_resampled(self, resamples: int, seed: int) -> list[Mapping[str, Tensor]]:
        """The same for every candidate, and half of the work: kept."""
        return [self._full_at(rows) for rows in self._resample(resamples, seed)]

    def _full_at(self, rows: Tensor) -> Mapping[str, Tensor]:
        """The full run's numbers (B,) by judge on selections ``rows`` (B, N) of the prompts."""
        return {name: term.full_at(rows) for name, term in self._terms.items()}

    def _values(self, evaluation: Evaluation) -> Mapping[str, Tensor]:
        """What each judge's number is of."""
        full = self._baseline.full
        if evaluation.features.shape != full.features.shape:
            raise ValueError(
                f"Features {tuple(evaluation.features.shape)} cannot be compared with the full run's "
                f"{tuple(full.features.shape)}: evaluate the same prompts with the same scoring model."
            )
        if (evaluation.alignment is None) != (full.alignment is None):
            raise ValueError("Alignments are known of the full run or of the other pictures alone: judge both alike.")
        return {name: term.prepare(evaluation) for name, term in self._terms.items()}

    def _found(self, values: Mapping[str, Tensor], rows: Tensor, full: Mapping[str, Tensor]) -> _Found:
        """Loss and its terms on each of B selections ``rows`` (B, N) of the prompts, given the full run's there."""
        numbers = {name: term.of_rows(values[name], rows) for name, term in self._terms.items()}
        lost = {name: term.lost(numbers[name], full[name]) / self._units[name] for name, term in self._terms.items()}
        told = {name: weight * _told(name, lost[name]) for name, weight in self.panel.weights.items() if weight}
        weighted = [_offset(name, each, told) for name, each in told.items()]
        return _Found(torch.stack(weighted).sum(0), numbers, lost)

    def _error(self, found: _Found) -> Tensor | None:
        """(B,), the mean over the judges of pairs."""
        errors = [found.lost[name] for name in self.panel.errors]
        return torch.stack(errors).mean(0) if errors else None


def _offset(judge: str, loss: Tensor, told: Mapping[str, Tensor]) -> Tensor:
    """A judge's part of the loss, no lower than what the other judge that it may offset has lost."""
    other = JUDGES[judge].offsets
    if other is None or other not in told:
        return loss
    return torch.maximum(loss, -told[other].clamp(min=0))


def _told(judge: str, lost: Tensor) -> Tensor:
    """As much of what is lost as the judge can tell."""
    most = JUDGES[judge].most
    return lost if most is None else lost.clamp(max=most)
