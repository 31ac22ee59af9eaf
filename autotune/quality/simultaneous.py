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
    earlier: Tensor | None = None,
) -> Verdict:
    """Judge finalists against a rival.

    Args:
        losses: (K + 1,) of K finalists, K >= 1, and then of the rival.
        pseudo: (P, K + 1) their :func:`pseudo_values`, in the same order.
        prompts: Different prompts.
        best: Place of the finalist that is judged; None is the one with the lowest loss.
        level: Of the intervals.
        earlier: (E, K + G + 1) pseudo-values of the finalists, of G that were dropped, and of the rival, on the
            pictures by which these were dropped; None where none were.
    """
    differences = losses[:-1] - losses[-1]
    before = None if earlier is None else earlier[:, :-1] - earlier[:, -1:]
    intervals = simultaneous(differences, pseudo[:, :-1] - pseudo[:, -1:], level, before)
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


def simultaneous(
    estimates: Tensor, pseudo: Tensor, level: float, earlier: Tensor | None = None
) -> tuple[Interval, ...]:
    """Intervals of K statistics that hold all K truths at ``level``.

    Args:
        estimates: (K,).
        pseudo: (P, K) their pseudo-values, P >= 2.
        level: Probability that all of them hold.
        earlier: (E, K + G) pseudo-values of these and of G others that were dropped: all K + G truths are held, and
            the others correlate with these as they did then. None where there are no others.
    """
    error = pseudo.std(0) / len(pseudo) ** 0.5
    correlation = _correlation(pseudo)
    if earlier is not None:
        whole = _correlation(earlier)
        whole[: len(estimates), : len(estimates)] = correlation
        correlation = whole
    reach = _largest_of(correlation, len(pseudo), level) * error
    return tuple(
        Interval(value=estimate, low=estimate - each, high=estimate + each)
        for estimate, each in zip(estimates.tolist(), reach.tolist(), strict=True)
    )


def _correlation(pseudo: Tensor) -> Tensor:
    """(K, K) of K statistics by their pseudo-values (P, K)."""
    centred = pseudo - pseudo.mean(0)
    lengths = centred.norm(dim=0)
    # What does not vary is known exactly; it correlates with nothing.
    units = centred / lengths.where(lengths > 0, 1)
    correlation: Tensor = units.T @ units
    return correlation.fill_diagonal_(1)


def _largest_of(correlation: Tensor, prompts: int, level: float) -> float:
    """What the largest of K correlated t statistics, in absolute value, exceeds with probability 1 - ``level``."""
    values, vectors = torch.linalg.eigh(correlation)
    root = vectors * values.clamp(min=0).sqrt()
    normal, scale = _draws(len(correlation), prompts - 1)
    return float(((normal @ root.T).abs().amax(1) / scale).quantile(level))


@functools.lru_cache(maxsize=4)
def _draws(count: int, freedom: int) -> tuple[Tensor, Tensor]:
    """Standard normal variables (_DRAWS, count), and what divides them in t statistics (_DRAWS,)."""
    generator = numpy.random.default_rng(0)
    squares = generator.chisquare(freedom, _DRAWS) / freedom
    return torch.from_numpy(generator.standard_normal((_DRAWS, count))), torch.from_numpy(squares).sqrt()
