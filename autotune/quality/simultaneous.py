"""Whether the best of several finalists beats a rival, said no more often than promised.

The best of K finalists is chosen by the very pictures that then speak for it, so chance favours it. Its interval is
therefore one of K *simultaneous* ones, of which all hold the truth at the level asked for: whichever is chosen, so
does its own. They are studentised: of every difference of losses the jackknife says how far it is from the truth in
its standard errors (Efron and Tibshirani 1993, chapter 11), and the largest of the K such distances is what a
multivariate t distribution with the differences' correlations says (Hothorn, Bretz and Westfall 2008, section 3),
which has the tails of small samples. Choosing on one half of the prompts and confirming on the other promises the same
and needs larger differences for it: ``studies.proxy.verdicts`` measures both.

Below :data:`autotune.quality.verdict.LEAST_PROMPTS` no difference is called beyond doubt, however large it looks.
"""

from __future__ import annotations

import functools

import numpy
import torch
from torch import Tensor

from autotune.core.interval import Interval
from autotune.quality.verdict import Verdict

__all__ = ["leave_one_out", "pseudo_values", "simultaneous", "verdict"]

# Of the t statistics; their quantile is right to half a percent.
_DRAWS = 100_000


def verdict(
    losses: Tensor,
    pseudo: Tensor,
    prompts: int,
    *,
    best: int | None = None,
    level: float = 0.95,
    among: int | None = None,
) -> Verdict:
    """Judge finalists against a rival.

    Args:
        losses: (K + 1,) of K finalists, K >= 1, and then of the rival.
        pseudo: (P, K + 1) their :func:`pseudo_values`, in the same order.
        prompts: Different prompts.
        best: Place of the finalist that is judged; None is the one with the lowest loss.
        level: Of the intervals.
        among: Finalists that there were, with those that were given up on earlier pictures; None is K.
    """
    differences = losses[:-1] - losses[-1]
    intervals = simultaneous(differences, pseudo[:, :-1] - pseudo[:, -1:], level, among)
    chosen = int(differences.argmin()) if best is None else best
    return Verdict(chosen, intervals[chosen], prompts)


def leave_one_out(rows: Tensor) -> Tensor:
    """Row numbers (P, N - N / P): all prompts but one, each of P left out once.

    Args:
        rows: (P, N / P), see :func:`autotune.quality.bootstrap.rows_of_prompt`.

    Raises:
        ValueError: If one prompt is all there is.
    """
    prompts = len(rows)
    if prompts < 2:
        raise ValueError("Of one prompt nothing is left where one is left out.")
    others = torch.arange(prompts - 1).expand(prompts, -1)
    return rows[others + (others >= torch.arange(prompts)[:, None])].flatten(1)


def pseudo_values(whole: Tensor, without: Tensor) -> Tensor:
    """Tukey's pseudo-values (P, K): what each prompt contributes to K statistics, as if they were means.

    Args:
        whole: (K,) the statistics of all P prompts.
        without: (P, K) the statistics without each of them.
    """
    prompts = len(without)
    return prompts * whole - (prompts - 1) * without


def simultaneous(estimates: Tensor, pseudo: Tensor, level: float, among: int | None = None) -> tuple[Interval, ...]:
    """Intervals of K statistics that hold all K truths at ``level``.

    Args:
        estimates: (K,).
        pseudo: (P, K) their pseudo-values, P >= 2.
        level: Probability that all of them hold.
        among: How many statistics there were before some were given up, at least K; None is K. Those that are gone
            count as if they correlated with nothing, which never makes intervals too narrow.
    """
    error = pseudo.std(0) / len(pseudo) ** 0.5
    reach = _largest_of(pseudo, level, among or len(estimates)) * error
    return tuple(
        Interval(value=estimate, low=estimate - each, high=estimate + each)
        for estimate, each in zip(estimates.tolist(), reach.tolist(), strict=True)
    )


def _largest_of(pseudo: Tensor, level: float, among: int) -> float:
    """What the largest of ``among`` t statistics, in absolute value, exceeds with probability 1 - ``level``."""
    prompts, left = pseudo.shape
    centred = pseudo - pseudo.mean(0)
    lengths = centred.norm(dim=0)
    # What does not vary is known exactly; it correlates with nothing.
    units = centred / lengths.where(lengths > 0, 1)
    correlation = torch.eye(among, dtype=pseudo.dtype)
    correlation[:left, :left] = units.T @ units
    correlation.fill_diagonal_(1)
    values, vectors = torch.linalg.eigh(correlation)
    root = vectors * values.clamp(min=0).sqrt()
    normal, scale = _draws(among, prompts - 1)
    return float(((normal @ root.T).abs().amax(1) / scale).quantile(level))


@functools.lru_cache(maxsize=4)
def _draws(count: int, freedom: int) -> tuple[Tensor, Tensor]:
    """Standard normal variables (_DRAWS, count), and what divides them in t statistics (_DRAWS,)."""
    generator = numpy.random.default_rng(0)
    squares = generator.chisquare(freedom, _DRAWS) / freedom
    return torch.from_numpy(generator.standard_normal((_DRAWS, count))), torch.from_numpy(squares).sqrt()
