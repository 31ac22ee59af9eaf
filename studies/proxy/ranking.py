"""How well losses rank policies: Spearman's correlation with the truth, and its bootstrap over policies and sets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, spearmanr

Losses = NDArray[np.float64]
"""Of policies, (P,)."""


def spearman(a: Losses, b: Losses) -> float:
    return float(spearmanr(a, b).statistic)


def resampled_correlations(scores: Sequence[Losses], truth: Losses, resamples: int = 1000) -> Losses:
    """Mean correlation over sets of pictures, with policies and sets drawn anew: (resamples,)."""
    draw = np.random.default_rng(0)
    policies = draw.integers(len(truth), size=(resamples, len(truth)))
    sets = draw.integers(len(scores), size=(resamples, len(scores)))
    ranks = _standardised_ranks(truth[policies])
    correlations = np.stack([(_standardised_ranks(each[policies]) * ranks).mean(1) for each in scores])
    return np.take_along_axis(correlations, sets.T, axis=0).mean(0)


def _standardised_ranks(values: Losses) -> Losses:
    """Of each row, with mean zero and variance one: the mean product of two rows is Spearman's correlation."""
    ranks = rankdata(values, axis=1)
    return (ranks - ranks.mean(1, keepdims=True)) / ranks.std(1, keepdims=True)
