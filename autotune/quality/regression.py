"""What is known of few pictures, mended by what is known of all.

A regression estimate (Cochran 1977, *Sampling Techniques*, chapter 7). How far a policy's pictures are from the *exact*
run's is known of few, for exact runs cost; how far they are from the *full* run's is known of all. Where the exact run
is not far from the full one, both go together: if the few are unlike all pictures in one, they are so in the other.
With eight pairs it halves what chance adds to a drift and to an error (``studies.proxy.validity``).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["regressed_means"]

# Of the mean square: what rounding leaves of a spread that is none.
_NO_SPREAD = 1e-12


def regressed_means(few: Tensor, known: Tensor, rows: Tensor) -> Tensor:
    """Means (B, D) of changes of which the first n of N are known, over selections of all N.

    Where both changes are the same the result is the mean of ``known`` over the selection, and where they have nothing
    in common, or a selection holds no others than the first n, it is the mean over those of the first n that are
    selected.

    Args:
        few: (n, D), of the first n pictures.
        known: (N, D), changes of all pictures that go together with those.
        rows: (B, M) selections of the pictures; one may be selected several times, as bootstraps do. A selection that
            has none of the first n counts as all of these.
    """
    few, known = few.double(), known.double()
    n = len(few)
    times = torch.zeros(len(rows), len(known), dtype=torch.float64).scatter_add_(
        1, rows, torch.ones_like(rows).double()
    )
    everywhere = times @ known / times.sum(1, keepdim=True)
    paired = times[:, :n]
    paired = torch.where(paired.sum(1, keepdim=True) > 0, paired, torch.ones_like(paired))
    paired = paired / paired.sum(1, keepdim=True)
    first = known[:n]
    mean, seen = paired @ few, paired @ first
    square = paired @ first.square().sum(1)
    spread = square - seen.square().sum(1)
    together = paired @ (few * first).sum(1) - (mean * seen).sum(1)
    slope = torch.where(spread > _NO_SPREAD * square, together / spread, 0.0).clamp(0, 1)
    result: Tensor = mean + slope[:, None] * (everywhere - seen)
    return result
