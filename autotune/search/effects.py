"""What settings change in the loss, alone and in pairs, learned from the few candidates that were tried.

The loss of a candidate is modelled as that of fewer steps, plus an effect of each of its settings, plus one of each
pair of them: a Bayesian linear regression (Bishop 2006, section 3.3), whose posterior says how sure each sum is. That
effects are sparse and pairs weaker than single settings is what factorial designs build on (Wu and Hamada 2009,
chapter 4).
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

_PAIRS = 0.5
"""Standard deviation of a pair's effect, as a share of a single setting's."""

_LEAST_SCALE = 0.02


@dataclass(frozen=True)
class Observation:
    """A candidate's settings and how much more than fewer steps it lost, with the standard deviation of its noise."""

    settings: frozenset[str]
    excess: float
    noise: float


class Effects:
    """Effects of settings and of pairs of them.

    Args:
        observed: At least one candidate. What loses far more than the others says no more than that: losses are cut at
            twice the largest gain or the usual loss, whichever is larger.
    """

    def __init__(self, observed: Sequence[Observation]) -> None:
        excess = [each.excess for each in observed]
        usual = statistics.median(map(abs, excess))
        most = 2 * max(usual, *(-value for value in excess))
        self._scale = max(usual, _LEAST_SCALE)
        self._settings = [each.settings for each in observed]
        self._excess = np.minimum(excess, most)
        noise = np.diag([each.noise**2 for each in observed])
        self._inverse = np.linalg.inv(self._shared(self._settings, self._settings) + noise)
        self._best = min(self.predict(each)[0] for each in [frozenset[str](), *self._settings])

    def predict(self, settings: Collection[str]) -> tuple[float, float]:
        """Mean and standard deviation of what a candidate with these settings loses more than fewer steps."""
        asked = [frozenset(settings)]
        shared = self._shared(asked, self._settings)
        mean = shared @ self._inverse @ self._excess
        variance = self._shared(asked, asked) - shared @ self._inverse @ shared.T
        return float(mean[0]), float(np.sqrt(max(variance[0, 0], 0.0)))

    def improvement(self, settings: Collection[str]) -> float:
        """How much less than the best one so far a candidate is expected to lose (expected improvement, not negative).

        Mockus 1978; the best one's loss is what the model says of it, not what chance made of it.
        """
        mean, deviation = self.predict(settings)
        if deviation == 0:
            return max(self._best - mean, 0.0)
        gain = (self._best - mean) / deviation
        return float(deviation * (gain * norm.cdf(gain) + norm.pdf(gain)))

    def _shared(self, some: Sequence[frozenset[str]], others: Sequence[frozenset[str]]) -> NDArray[np.float64]:
        """Covariance of losses: candidates share the effects of settings, and pairs of these, that both have."""
        common = np.array([[len(one & other) for other in others] for one in some], dtype=float)
        covariance: NDArray[np.float64] = self._scale**2 * (common + _PAIRS**2 * common * (common - 1) / 2)
        return covariance
