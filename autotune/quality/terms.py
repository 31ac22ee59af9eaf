"""What a loss is made of: numbers of any selection of the prompts, each with its unit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality.estimators import Measure
from autotune.quality.evaluations import Baseline, Evaluation
from autotune.quality.fidelity import feature_distances
from autotune.quality.panel import ALIGNMENT, DISTANCE, FIDELITY, JUDGES, Panel
from autotune.quality.regression import regressed_means

__all__ = ["Term", "paired_mean", "terms_of", "units_of"]


@dataclass(frozen=True, eq=False)
class Term:
    """A number of a policy's pictures.

    Attributes:
        prepare: Takes an evaluation, returns what the number is of, one row per picture or per pair.
        of_rows: Takes that and row numbers (B, n), returns the number (B,) for each of these selections.
        full: The full run's, prepared; None where its number is zero by definition.
        higher_is_better: Whether it falls where pictures lose.
    """

    prepare: Callable[[Evaluation], Tensor]
    of_rows: Callable[[Tensor, Tensor], Tensor]
    full: Tensor | None = None
    higher_is_better: bool = False

    def full_at(self, rows: Tensor) -> Tensor:
        """The full run's number (B,) on selections ``rows`` (B, n) of the prompts."""
        return torch.zeros(len(rows), dtype=torch.float64) if self.full is None else self.of_rows(self.full, rows)

    def lost(self, number: Tensor, full: Tensor) -> Tensor:
        """How much worse a number is than the full run's."""
        return full - number if self.higher_is_better else number - full


def terms_of(panel: Panel, baseline: Baseline, measures: Mapping[str, Measure]) -> dict[str, Term]:
    """The terms of a panel by judge, in their order: first those that every evaluation has, weighted or not.

    Args:
        panel: The judges.
        baseline: The full run.
        measures: Distances to the references, by judge.
    """
    full = baseline.full
    terms = {DISTANCE: _of_features(measures[DISTANCE], lambda evaluation: evaluation.features, full)}
    if full.alignment is not None:
        terms[ALIGNMENT] = _of_numbers(_alignment, full)
    terms[FIDELITY] = Term(lambda evaluation: feature_distances(evaluation.features, full.features), _means)
    for name in panel.further:
        kind = JUDGES[name].kind
        if kind == "paired":
            known = _known_beside(name, full)
            if known is None:
                terms[name] = Term(_errors_by(name), JUDGES[name].of_rows or paired_mean)
            else:
                terms[name] = _regressed(_errors_by(name), known)
        elif kind == "distribution":
            terms[name] = _of_features(measures[name], _further_by(name), full)
        else:
            terms[name] = _of_numbers(_further_by(name), full)
    return terms


def units_of(panel: Panel, baseline: Baseline, measures: Mapping[str, Measure]) -> dict[str, float]:
    """What one in each term stands for: coarse pictures' number, or that of the wrong prompts, less the full run's.

    Raises:
        InputError: A judge with a weight cannot tell the full run's pictures from bad ones.
    """
    full, units = baseline.full, {}
    of_full, bad = measures[DISTANCE](full.features), measures[DISTANCE](baseline.coarse)
    units[DISTANCE] = bad - of_full
    if bad <= of_full and panel.weight(DISTANCE):
        raise InputError(
            f"The full run's pictures are as far from the reference ({of_full:.4g}) as 16-pixel impressions of them "
            f"({bad:.4g}): give a reference that shows what the prompts ask for, or weigh the distance with 0."
        )
    if full.alignment is not None and baseline.chance is not None:
        matched, chance = (float(values.cpu().double().mean()) for values in (full.alignment, baseline.chance))
        units[ALIGNMENT] = matched - chance
        if matched <= chance and panel.weight(ALIGNMENT):
            raise InputError(
                f"The full run's pictures match their prompts (alignment {matched:.3f}) no "
                f"better than other prompts ({chance:.3f}): score with a model that knows such prompts."
            )
    elif panel.weight(ALIGNMENT):
        raise InputError("Pictures without prompts have no alignment: give it no weight.")
    coarse_changes = feature_distances(baseline.coarse, full.features)
    units[FIDELITY] = float(coarse_changes.mean())
    for name in panel.further:
        kind, beside = JUDGES[name].kind, JUDGES[name].beside
        if kind == "paired" and beside == FIDELITY:
            few, rows = _numbers(baseline.coarse_errors[name]), torch.arange(len(coarse_changes))[None]
            units[name] = float(regressed_means(few[:, None], coarse_changes[:, None], rows))
        elif kind == "paired" and beside not in full.further:
            coarse_errors = _numbers(baseline.coarse_errors[name])
            number = JUDGES[name].of_rows or paired_mean
            units[name] = float(number(coarse_errors, torch.arange(len(coarse_errors))[None]))
        elif kind in ("paired", "distribution"):
            # Of changes of features that are known of all pictures the unit is that of these features.
            of = beside or name
            seen, unit = (flat(baseline.coarse_further[of]), flat(full.further[of])), JUDGES[of].unit
            units[name] = unit(*seen) if unit else measures[of](seen[0]) - measures[of](seen[1])
        else:
            units[name] = float((_numbers(full.further[name]) - _numbers(baseline.coarse_further[name])).mean())
        if not units[name] > 0 and (panel.weight(name) or (panel.ceiling is not None and kind == "paired")):
            raise InputError(
                f"judge {name} finds the full run's pictures no better than 16-pixel impressions of them "
                f"({units[name]:+.4g}): it does not suit such pictures or their reference; leave it out"
            )
    return units


def paired_mean(values: Tensor, rows: Tensor) -> Tensor:
    """Mean (B,) of the values (n,) of the first n pictures over selections ``rows`` (B, N) of all N.

    Of signed values (n, D) it is the mean over the D of the absolute means. A selection that has none of the first n,
    which is rare, counts as all of them.
    """
    columns = values if values.ndim == 2 else values[:, None]
    paired = (rows < len(values))[..., None]
    counts = paired.sum(1)
    sums = torch.where(paired, columns[rows.clamp(max=len(values) - 1)], 0.0).sum(1)
    means = torch.where(counts > 0, sums / counts.clamp(min=1), columns.mean(0))
    return means.abs().mean(1) if values.ndim == 2 else means[:, 0]


def _known_beside(name: str, full: Evaluation) -> Callable[[Evaluation], Tensor] | None:
    """What says of all pictures (N, D) how they differ from the full run's, and goes together with a judge of pairs."""
    beside = JUDGES[name].beside
    if beside == FIDELITY:
        return lambda evaluation: feature_distances(evaluation.features, full.features)[:, None]
    if beside is None or beside not in full.further:
        return None
    of_full, features = _numbers(full.further[beside]), _further_by(beside)
    return lambda evaluation: _numbers(features(evaluation)) - of_full


def _regressed(errors: Callable[[Evaluation], Tensor], known_beside: Callable[[Evaluation], Tensor]) -> Term:
    """The mean over D of the absolute regressed means of errors (n, D), or (n,) where D is one."""

    def prepare(evaluation: Evaluation) -> Tensor:
        few, known = errors(evaluation), known_beside(evaluation)
        if few.ndim == 1:
            # Of many D they are zeros, of pictures that are the exact run's own.
            few = few[:, None].expand(-1, known.shape[1])
        # One row per picture, beside each other: errors of pictures that have none are no numbers.
        missing = few.new_full((len(known) - len(few), few.shape[1]), torch.nan)
        return torch.cat([torch.cat([few, missing]), known], 1)

    def of_rows(prepared: Tensor, rows: Tensor) -> Tensor:
        few, known = prepared.chunk(2, 1)
        return regressed_means(few[~few[:, 0].isnan()], known, rows).abs().mean(1)

    return Term(prepare, of_rows)


def flat(features: Tensor) -> Tensor:
    """Features of crops (N, C, D) as rows (N * C, D); (N, D) as they are."""
    return features.flatten(0, 1) if features.ndim == 3 else features


def _of_features(measure: Measure, features: Callable[[Evaluation], Tensor], full: Evaluation) -> Term:
    places = features(full).shape[1] if features(full).ndim == 3 else 1

    def prepare(evaluation: Evaluation) -> Tensor:
        return measure.prepare(flat(features(evaluation)))

    def of_rows(prepared: Tensor, rows: Tensor) -> Tensor:
        if places > 1:
            rows = (rows[..., None] * places + torch.arange(places)).flatten(1)
        return measure.of_rows(prepared, rows)

    return Term(prepare, of_rows, prepare(full))


def _of_numbers(numbers: Callable[[Evaluation], Tensor], full: Evaluation) -> Term:
    def prepare(evaluation: Evaluation) -> Tensor:
        return _numbers(numbers(evaluation))

    return Term(prepare, _means, prepare(full), higher_is_better=True)


def _alignment(evaluation: Evaluation) -> Tensor:
    assert evaluation.alignment is not None, "checked before"
    return evaluation.alignment


def _errors_by(name: str) -> Callable[[Evaluation], Tensor]:
    def errors(evaluation: Evaluation) -> Tensor:
        if name not in evaluation.errors:
            raise ValueError(f"The pictures were not judged by {name}.")
        return _numbers(evaluation.errors[name])

    return errors


def _further_by(name: str) -> Callable[[Evaluation], Tensor]:
    def found(evaluation: Evaluation) -> Tensor:
        if name not in evaluation.further:
            raise ValueError(f"The pictures were not judged by {name}.")
        return evaluation.further[name]

    return found


def _numbers(values: Tensor) -> Tensor:
    return values.cpu().double()


def _means(values: Tensor, rows: Tensor) -> Tensor:
    """(B,) of the values at each of B selections ``rows`` (B, N)."""
    return values[rows].mean(1)
