"""The judges that :mod:`studies.proxy.validity` compares: terms of policies' pictures, and ways to join them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from autotune.quality import Objective, Reference, Weights
from autotune.quality.frechet import fit
from autotune.quality.objective import DISTANCE
from autotune.quality.regression import regressed_means
from autotune.quality.wavelets import by_band, drift, from_mean
from studies.proxy.features import Views
from studies.proxy.ranking import Losses

DEFAULT = "distance / 2 + 6 alignment + 1.5 error, at most 0.75, + (1.5 drift + textures / 2), at least 0"
FORMER_DEFAULT = "distance + 4 alignment and the rest, error of the pairs alone (formerly)"
BEFORE_REGRESSION = "distance + 4 alignment + error, at most 0.5, + (2 drift + textures / 2), at least 0"
BEFORE_TEXTURES = "distance + 4 alignment + 2 drift + error, at most 0.5"
OLD_DEFAULT = "distance + 4 alignment (the first default)"
CEILING = 0.5
"""Of the error in the loss: beyond it pictures are other ones, which says nothing of how good they are."""


@dataclass(frozen=True, eq=False)
class Terms:
    """What a judge may combine, (P,) each: 0 for the full run, 1 for coarse pictures or alignment by chance.

    Attributes:
        distance: Of ``emoji-clip``'s features to those of the real pictures.
        alignment: By ``emoji-clip``.
        change: ``emoji-clip``'s mean distance to the full run's pictures.
        error: The same to the exact run's.
        drift: Of textures from the exact run's.
        steady_drift: The same by regression on all pictures.
        steady_error: The error by regression on all pictures' change.
        structure: Mean Haar error to the exact run's pictures.
        wavelets: Frechet distance by band to the real pictures.
        exact_wavelets: The same to the exact run's pictures.
        textures: How far mean textures are from the real pictures', in the unit of the drift.
    """

    distance: Losses
    alignment: Losses
    change: Losses
    error: Losses
    drift: Losses
    steady_drift: Losses
    steady_error: Losses
    structure: Losses
    wavelets: Losses
    exact_wavelets: Losses
    textures: Losses


Judge = Callable[[Terms], Losses]


def _capped(error: Losses) -> Losses:
    return np.minimum(error, CEILING)


def panel(terms: Terms) -> Losses:
    """The default."""
    return weighed(terms, 0.5, 6)


def weighed(terms: Terms, distance: float, alignment: float) -> Losses:
    """The default but for the weights of what needs no exact runs."""
    steady = replace(terms, error=terms.steady_error)
    return _joined(steady, 1.5, 1.5 * terms.steady_drift, distance, alignment)


def _joined(terms: Terms, error: float, drift: Losses, distance: float = 1, alignment: float = 4) -> Losses:
    intent = distance * terms.distance + alignment * terms.alignment
    return intent + error * _capped(terms.error) + np.maximum(0, drift + terms.textures / 2)


def _without_textures(terms: Terms) -> Losses:
    return terms.distance + 4 * terms.alignment + 2 * terms.drift + _capped(terms.error)


JUDGES: Mapping[str, Judge] = {
    OLD_DEFAULT: lambda t: t.distance + 4 * t.alignment,
    "distance": lambda t: t.distance,
    "alignment": lambda t: t.alignment,
    "change to the full run": lambda t: t.change,
    "error": lambda t: t.error,
    "drift": lambda t: t.drift,
    "structure": lambda t: t.structure,
    "Frechet wavelet distance by band to real pictures": lambda t: t.wavelets,
    "mean textures to real pictures'": lambda t: t.textures,
    "Frechet wavelet distance by band to the exact run's": lambda t: t.exact_wavelets,
    "distance + 2 error": lambda t: t.distance + 2 * t.error,
    "distance + 4 alignment + 2 drift": lambda t: t.distance + 4 * t.alignment + 2 * t.drift,
    "distance + 4 alignment + error, at most 0.5": lambda t: t.distance + 4 * t.alignment + _capped(t.error),
    "distance + 4 alignment + 2 drift + error": lambda t: t.distance + 4 * t.alignment + 2 * t.drift + t.error,
    "worst of distance, 4 alignment, 2 drift and error, at most 0.5": lambda t: np.maximum.reduce(
        [t.distance, 4 * t.alignment, 2 * t.drift, _capped(t.error)]
    ),
    "distance + alignment + 2 drift + error, at most 0.5": lambda t: (
        t.distance + t.alignment + 2 * t.drift + _capped(t.error)
    ),
    "distance + 4 alignment + drift + error, at most 0.5": lambda t: (
        t.distance + 4 * t.alignment + t.drift + _capped(t.error)
    ),
    "distance + 4 alignment + 4 drift + error, at most 0.5": lambda t: (
        t.distance + 4 * t.alignment + 4 * t.drift + _capped(t.error)
    ),
    "distance + 4 alignment + 2 drift + structure, at most 0.5": lambda t: (
        t.distance + 4 * t.alignment + 2 * t.drift + _capped(t.structure)
    ),
    BEFORE_TEXTURES: _without_textures,
    "the same + Frechet wavelet distance by band to real pictures": lambda t: _without_textures(t) + t.wavelets,
    "the same + textures": lambda t: _without_textures(t) + t.textures,
    "the same + textures / 2": lambda t: _without_textures(t) + t.textures / 2,
    BEFORE_REGRESSION: lambda t: _joined(t, 1, 2 * t.drift),
    "distance + 4 alignment + error, at most 0.5, + (drift by regression + textures / 2), at least 0": (
        lambda t: _joined(t, 1, t.steady_drift)
    ),
    "distance + 4 alignment + error, at most 0.5, + (2 drift by regression + textures / 2), at least 0": (
        lambda t: _joined(t, 1, 2 * t.steady_drift)
    ),
    "distance + 4 alignment + 2 error, at most 1, + (2 drift by regression + textures / 2), at least 0": (
        lambda t: _joined(t, 2, 2 * t.steady_drift)
    ),
    FORMER_DEFAULT: lambda t: _joined(t, 1.5, 1.5 * t.steady_drift),
    "distance + 4 alignment and the rest": lambda t: weighed(t, 1, 4),
    "distance + 6 alignment and the rest": lambda t: weighed(t, 1, 6),
    "distance / 2 + 4 alignment and the rest": lambda t: weighed(t, 0.5, 4),
    "distance / 4 + 6 alignment and the rest": lambda t: weighed(t, 0.25, 6),
    "distance / 2 + 8 alignment and the rest": lambda t: weighed(t, 0.5, 8),
    "distance / 2 + 12 alignment and the rest": lambda t: weighed(t, 0.5, 12),
    "the default + change to the full run / 5": lambda t: panel(t) + t.change / 5,
    DEFAULT: panel,
}


def terms_of(seen: Views, rows: Tensor, paired: int, every: int = 1) -> Terms:
    """All terms on the pictures ``rows``, errors on the first ``paired`` of them, guidance snapped to ``every``."""
    few, all_of = rows[:paired], rows[None]
    count = len(seen.policies)
    reference = Reference.of(seen.real.clip, shrink=True)
    evaluations = [seen.proxy(index, rows) for index in range(count)]

    def losses(weights: Weights) -> Losses:
        objective = Objective(reference, seen.proxy_baseline(rows), distance=DISTANCE, weights=weights)
        return np.array([objective.score(each).loss for each in evaluations])

    def errors(kind: str, snapped: int) -> Losses:
        return np.array([seen.error(kind, index, few, snapped) for index in range(count)])

    real = Reference.of(seen.real.textures).gaussian
    bands, means = by_band(real), from_mean(real)
    looked_at = [each.textures[rows] for each in (*seen.policies, seen.coarse)]
    exact_wavelets = [
        _by_band(each.textures[few], (each.textures - pair.change)[few])
        for each, pair in zip(seen.policies, seen.pairs[every], strict=True)
    ]
    whole = float(drift(seen.unit.change, all_of))
    full, everything = seen.policies[0].textures[rows], torch.arange(len(rows))[None]
    steadier = [
        float(regressed_means(pair.change[few], each.textures[rows] - full, everything).abs().mean()) / whole
        for each, pair in zip(seen.policies, seen.pairs[every], strict=True)
    ]
    unit = float(seen.unit.clip[rows].mean())
    steady_errors = [
        float(regressed_means(pair.clip[few][:, None], from_full.clip[rows][:, None], everything)[0, 0].abs()) / unit
        for pair, from_full in zip(seen.pairs[every], seen.pairs[0], strict=True)
    ]
    drifts = [float(drift(pair.change, few[None])) / whole for pair in seen.pairs[every]]
    return Terms(
        distance=losses(Weights(1, 0)),
        alignment=losses(Weights(0, 1)),
        change=errors("clip", 0),
        error=errors("clip", every),
        drift=np.array(drifts),
        steady_drift=np.array(steadier),
        steady_error=np.array(steady_errors),
        structure=errors("haar", every),
        wavelets=_lost([bands(each) for each in looked_at]),
        textures=(np.array([means(each) for each in looked_at[:-1]]) - means(looked_at[0])) / whole,
        exact_wavelets=np.array(exact_wavelets) / _by_band(seen.coarse.textures[rows], seen.policies[0].textures[rows]),
    )


def _lost(numbers: Sequence[float]) -> Losses:
    """Of all policies, from numbers of the full run, of the others and of the coarse pictures: 0 and 1 are the ends."""
    found = np.array(numbers)
    return (found[:-1] - found[0]) / (found[-1] - found[0])


def _by_band(textures: Tensor, others: Tensor) -> float:
    return by_band(fit(others, shrink=False))(textures)
