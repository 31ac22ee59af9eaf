"""Which estimator, on how few pictures, ranks policies as the truth does?

``python -m studies.proxy.estimators`` reads the pictures of 52 policies of each shipped model
(:mod:`studies.proxy.pictures`) and prints, for every estimator and n = 32, 64, 128 and 256 pictures:

- Spearman's rank correlation with the truth, averaged over disjoint sets of n pictures, with a 95 % bootstrap interval
  over policies and sets;
- top-5 regret: the true loss of the best of the estimator's five favourites minus that of the best of all policies.

Truth is the objective's formula with equal weights as judges see it whom it never asks (:mod:`studies.proxy.features`):
Frechet distance of EfficientNet-Lite0's features to the real pictures, and alignment by a second CLIP, on all 512
pictures of a policy. At n = 128 ``apart`` is the correlation with the truth of the other 384 pictures, of which the
estimator has seen none. How well any ranking can do is bounded by the truth's own noise: the correlation of two
halves of it is printed too. Results go to the folder ``results`` beside this file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from autotune.core.records import write_atomically
from autotune.models.shipped import DEMO_NAMES
from autotune.quality import Objective, Reference, Weights
from autotune.quality.objective import DISTANCE
from studies.proxy.chosen import policies
from studies.proxy.features import Views, views
from studies.proxy.pictures import FOLDER, PICTURES
from studies.proxy.ranking import Losses, resampled_correlations, spearman

RESULTS = Path(__file__).with_name("results")
COUNTS = (32, 64, 128, 256)
APART = 128
MOST_SETS = 8
TOP = 5
PLAIN = "plain FD alone"
TRUTH_DISTANCE = "frechet"
# Both sides alike, whatever weights the objective takes: a truth that moved with them would flatter them.
TRUTH_WEIGHTS = Weights(1, 1)


@dataclass(frozen=True)
class Scoring:
    """A way to score policies on few pictures; ``own`` takes the full run's other pictures as the reference."""

    name: str
    distance: str
    weights: Weights
    own: bool = False


CANDIDATES = (
    Scoring(PLAIN, "frechet", Weights(1, 0)),
    Scoring("alignment alone", "frechet-subspace-32", Weights(0, 1)),
    *(
        Scoring(f"{name} + alignment", name, Weights(1, 1))
        for name in (
            "frechet",
            "frechet-shrunk",
            "frechet-subspace-16",
            "frechet-subspace-32",
            "frechet-subspace-64",
            "frechet-shrunk-subspace-16",
            "frechet-shrunk-subspace-32",
            "frechet-shrunk-subspace-64",
            "frechet-subspace-16-infinity",
            "frechet-subspace-32-infinity",
            "kid",
            "cmmd",
            "cmmd-unbiased",
        )
    ),
    *(
        Scoring(f"frechet-subspace-32 + {weight:g} x alignment", "frechet-subspace-32", Weights(1, weight))
        for weight in (2, 4, 8)
    ),
    Scoring("change alone", "frechet-subspace-32", Weights(0, 0, 1)),
    Scoring("default, own reference", DISTANCE, Weights(), own=True),
)


@dataclass(frozen=True)
class Result:
    """One estimator on n pictures. ``low`` and ``high`` bound the 95 % interval of ``spearman``.

    ``gain`` is what ``spearman`` has over the plain Frechet distance on the same pictures, with its interval.
    """

    model: str
    estimator: str
    n: int
    sets: int
    spearman: float
    low: float
    high: float
    apart: float | None
    regret: float
    gain: tuple[float, float, float]


def true_losses(seen: Views, rows: Tensor) -> Losses:
    objective = Objective(
        Reference.of(seen.real.network), seen.truth_baseline(rows), distance=TRUTH_DISTANCE, weights=TRUTH_WEIGHTS
    )
    return np.array([objective.score(seen.truth(index, rows)).loss for index in range(len(seen.policies))])


def losses(seen: Views, candidate: Scoring, rows: Tensor, others: Tensor) -> Losses:
    pictures = seen.policies[0].clip[others] if candidate.own else seen.real.clip
    objective = Objective(
        Reference.of(pictures, shrink=True),
        seen.proxy_baseline(rows),
        distance=candidate.distance,
        weights=candidate.weights,
    )
    return np.array([objective.score(seen.proxy(index, rows)).loss for index in range(len(seen.policies))])


def sets_of(n: int) -> list[tuple[Tensor, Tensor]]:
    """Disjoint sets of ``n`` rows, each with all other rows."""
    order = torch.randperm(PICTURES, generator=torch.Generator().manual_seed(0))
    parts = [order[start : start + n] for start in range(0, PICTURES - n + 1, n)][:MOST_SETS]
    return [(part, order[~torch.isin(order, part)]) for part in parts]


def judged(
    model: str,
    candidate: Scoring,
    n: int,
    scores: Sequence[Losses],
    plain: Sequence[Losses],
    truth: Losses,
    apart: Sequence[Losses] | None,
) -> Result:
    """Compare the losses on each set with the truth."""
    resampled = resampled_correlations(scores, truth)
    gains = resampled - resampled_correlations(plain, truth)
    gain = float(np.mean([spearman(a, truth) - spearman(b, truth) for a, b in zip(scores, plain, strict=True)]))
    best = float(truth.min())
    return Result(
        model=model,
        estimator=candidate.name,
        n=n,
        sets=len(scores),
        spearman=float(np.mean([spearman(each, truth) for each in scores])),
        low=float(np.quantile(resampled, 0.025)),
        high=float(np.quantile(resampled, 0.975)),
        apart=None
        if apart is None
        else float(np.mean([spearman(each, other) for each, other in zip(scores, apart, strict=True)])),
        gain=(gain, float(np.quantile(gains, 0.025)), float(np.quantile(gains, 0.975))),
        regret=float(np.mean([truth[np.argsort(each)[:TOP]].min() - best for each in scores])),
    )


def study(model: str, seen: Views) -> tuple[list[Result], float]:
    """All results for a model, and how well its truth agrees with itself."""
    everything = torch.arange(PICTURES)
    truth = true_losses(seen, everything)
    halves = [spearman(*(true_losses(seen, half) for half in everything.split(PICTURES // 2)))]
    # Spearman and Brown: what two truths of full length would correlate with.
    agreement = 2 * halves[0] / (1 + halves[0])
    results = []
    for n in COUNTS:
        sets = sets_of(n)
        apart = [true_losses(seen, others) for _, others in sets] if n == APART else None
        plain: list[Losses] = []
        for candidate in track(CANDIDATES, description=f"{model}, {n} pictures"):
            scores = [losses(seen, candidate, rows, others) for rows, others in sets]
            plain = plain or scores
            results.append(judged(model, candidate, n, scores, plain, truth, apart))
    return results, agreement


def table(model: str, results: Sequence[Result], agreement: float, count: int) -> Table:
    shown = Table(
        title=f"{model}: Spearman with the truth (regret), {count} policies; truth with itself {agreement:.3f}"
    )
    shown.add_column("estimator")
    for n in COUNTS:
        shown.add_column(f"n = {n}", justify="right")
    for candidate in CANDIDATES:
        row = [each for each in results if each.estimator == candidate.name]
        shown.add_row(
            candidate.name,
            *(f"{each.spearman:.3f} ({each.low:.2f}..{each.high:.2f}) {each.regret:.3f}" for each in row),
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--models", nargs="*", choices=DEMO_NAMES, default=list(DEMO_NAMES))
    args = parser.parse_args()
    console = Console(highlight=False, width=180)
    for model in args.models:
        entries = policies(model)
        seen = views(model, entries, args.folder)
        results, agreement = study(model, seen)
        console.print(table(model, results, agreement, len(entries)))
        truth = true_losses(seen, torch.arange(PICTURES))
        document = {
            "model": model,
            "pictures": PICTURES,
            "agreement": agreement,
            "policies": [
                {"id": entry.policy.id, "share": entry.share, "truth": float(loss)}
                for entry, loss in zip(entries, truth, strict=True)
            ],
            "results": [asdict(result) for result in results],
        }
        write_atomically(RESULTS / f"{model}.json", json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
