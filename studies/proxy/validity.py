"""Which judge ranks policies as people's deputies do, and what does its favourite cost?

``python -m studies.proxy.validity`` reads the pictures of :mod:`studies.proxy.pictures` (52 policies a model, what
searches liked and what is written by hand among them, and the exact run of each one's intent) and prints for every
judge on 64 and on 128 pictures:

- Spearman's rank correlation with the truth, averaged over disjoint sets of pictures, with a 95 % bootstrap interval
  over policies and sets;
- regret: the true loss of the judge's favourite, minus that of the best policy; once among all policies and once among
  those of at most 30 % of the FLOPs, for a search takes the first and nothing else;
- guided: the correlation among full runs that are guided in all or some steps, which approximate nothing;
- inversions: policies that EfficientNet rejects (a distance above 0.4) ranked before ones that it accepts (below 0.2).

The truth is the mean of three losses, by networks that no search asks (:mod:`studies.proxy.features`), weights fixed
before any result: EfficientNet-Lite0's Frechet distance to the real pictures, a second CLIP's alignment, and the mean
distance, in EfficientNet's features, to the pictures of the exact run. Each is 0 for the full run and 1 for pictures of
16 pixels a side, or for alignment by chance.

Two more tables say how many pictures of exact runs the new default needs, and what it costs to snap guidance to few
intervals. A last one says how wrong differences of drifts and of errors are by few pairs. Results go to
``results/judges-MODEL.json`` beside this file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from autotune.core.records import write_atomically
from autotune.models.shipped import DEMO_NAMES
from autotune.quality import Objective, Reference, Weights
from autotune.quality.regression import regressed_means
from studies.proxy.chosen import Entry, policies
from studies.proxy.features import Views, views
from studies.proxy.judges import DEFAULT, FORMER_DEFAULT, JUDGES, OLD_DEFAULT, Terms, panel, terms_of
from studies.proxy.pictures import FOLDER, PICTURES, SNAPS
from studies.proxy.ranking import Losses, resampled_correlations, spearman

RESULTS = Path(__file__).with_name("results")
COUNTS = (64, 128)
PAIRED = (8, 16, 32, 64)
CHEAP = 0.305
REJECTED, ACCEPTED = 0.4, 0.2
# Drifts of policies that a search has to tell apart, and selections of pictures.
GOOD, DRAWS = 0.15, 200
# An error that only rounding makes.
_NOTHING = 1e-6


@dataclass(frozen=True, eq=False)
class Truth:
    """Of all policies (P,): the three losses."""

    distance: Losses
    alignment: Losses
    error: Losses

    @property
    def loss(self) -> Losses:
        return (self.distance + self.alignment + self.error) / 3


@dataclass(frozen=True)
class Result:
    """One judge on n pictures, means over sets. ``low`` and ``high`` bound the 95 % interval of ``spearman``.

    Attributes:
        halves: The lowest correlation in 20 random halves of the policies.
        apart: The correlation with the truth of the other pictures, where half of them or more are others.
        guided: The correlation among runs of all steps; None of a judge to which they are all the same.
    """

    judge: str
    n: int
    paired: int
    snapped: int
    sets: int
    spearman: float
    low: float
    high: float
    halves: float
    apart: float | None
    guided: float | None
    regret: float
    cheap_regret: float
    inversions: float


@dataclass(frozen=True)
class Noise:
    """Root mean square of what is wrong with differences of drifts or of errors, in the term's unit.

    Attributes:
        term: ``drift`` or ``error``.
        paired: Pictures in pairs.
        plain: By the mean over these.
        regressed: By :func:`autotune.quality.regression.regressed_means`.
    """

    term: str
    paired: int
    plain: float
    regressed: float


def truth_of(seen: Views, rows: Tensor) -> Truth:
    objective = partial(
        Objective, Reference.of(seen.real.network), seen.truth_baseline(rows), distance="frechet-subspace-64"
    )
    evaluations = [seen.truth(index, rows) for index in range(len(seen.policies))]

    def losses(weights: Weights) -> Losses:
        each = objective(weights=weights)
        return np.array([each.score(evaluation).loss for evaluation in evaluations])

    errors = [seen.error("network", index, rows) for index in range(len(evaluations))]
    return Truth(losses(Weights(1, 0)), losses(Weights(0, 1)), np.array(errors))


def judged(
    name: str,
    n: int,
    paired: int,
    snapped: int,
    scores: Sequence[Losses],
    truth: Truth,
    others: Sequence[Losses],
    shares: Losses,
) -> Result:
    """Compare the losses on each set with the truth, and with that of the ``others`` pictures where there are any."""
    loss, cheap = truth.loss, shares <= CHEAP
    resampled = resampled_correlations(scores, loss)
    guided = truth.error < _NOTHING
    rejected, accepted = truth.distance > REJECTED, truth.distance < ACCEPTED
    draw = np.random.default_rng(0)
    halves = [draw.permutation(len(loss))[: len(loss) // 2] for _ in range(20)]
    mean = np.mean(scores, 0)
    return Result(
        judge=name,
        n=n,
        paired=paired,
        snapped=snapped,
        sets=len(scores),
        spearman=float(np.mean([spearman(each, loss) for each in scores])),
        low=float(np.quantile(resampled, 0.025)),
        high=float(np.quantile(resampled, 0.975)),
        halves=min(spearman(mean[half], loss[half]) for half in halves),
        apart=float(np.mean([spearman(a, b) for a, b in zip(scores, others, strict=True)])) if others else None,
        guided=(
            float(np.mean([spearman(each[guided], loss[guided]) for each in scores]))
            if min(np.ptp(each[guided]) for each in scores) > _NOTHING
            else None
        ),
        regret=float(np.mean([loss[each.argmin()] - loss.min() for each in scores])),
        cheap_regret=float(np.mean([loss[cheap][each[cheap].argmin()] - loss[cheap].min() for each in scores])),
        inversions=float(np.mean([(each[rejected][:, None] < each[accepted]).sum() for each in scores])),
    )


def sets_of(count: int, n: int) -> list[Tensor]:
    """Disjoint sets of ``n`` of the rows, in an order drawn once."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return [order[start : start + n] for start in range(0, count - n + 1, n)]


def study(seen: Views, truth: Truth, entries: Sequence[Entry], count: int) -> list[Result]:
    snaps = [every for every in seen.pairs if every > 1]
    shares = np.array([entry.share for entry in entries])
    results = []
    for n in (n for n in COUNTS if n <= count):
        sets, everything = sets_of(count, n), torch.arange(count)
        others = [truth_of(seen, everything[~torch.isin(everything, rows)]).loss for rows in sets if 2 * n <= count]
        terms = [terms_of(seen, rows, n) for rows in sets]
        for name, judge in JUDGES.items():
            results.append(judged(name, n, n, 1, [judge(each) for each in terms], truth, others, shares))
        for paired, every in [(k, 1) for k in PAIRED if k < n] + [(n, every) for every in snaps]:
            few = [terms_of(seen, rows, paired, every) for rows in sets]
            for name in (DEFAULT, FORMER_DEFAULT):
                losses = [JUDGES[name](each) for each in few]
                results.append(judged(name, n, paired, every, losses, truth, others, shares))
    return results


def noises(seen: Views, count: int) -> list[Noise]:
    """How wrong differences of two good policies' drifts and errors are, for few pairs."""
    rows = torch.arange(count)
    changes = [pair.change[rows].double() for pair in seen.pairs[1]]
    from_full = [(each.textures - seen.policies[0].textures)[rows].double() for each in seen.policies]
    unit = seen.unit.change[rows].double().mean(0).abs().mean()
    drifts = torch.stack([each.mean(0).abs().mean() / unit for each in changes])
    good = ((drifts > 0) & (drifts < GOOD)).nonzero()[:, 0].tolist()
    errors, to_full = ([pair.clip[rows, None].double() for pair in seen.pairs[every]] for every in (1, 0))
    of_all: list[tuple[str, list[Tensor], list[Tensor], Tensor]] = [
        ("drift", changes, from_full, unit),
        ("error", errors, to_full, seen.unit.clip[rows].double().mean()),
    ]
    return [
        _noise(term, [(exact[index] / one, known[index] / one) for index in good], paired)
        for term, exact, known, one in of_all
        for paired in PAIRED
        if paired < count
    ]


def _noise(term: str, policies: Sequence[tuple[Tensor, Tensor]], paired: int) -> Noise:
    """Of policies' values (N, D) in pairs and how they differ from the full run's (N, D)."""
    count = len(policies[0][0])
    truth = torch.stack([exact.mean(0).abs().mean() for exact, _ in policies])
    draw, everything = torch.Generator().manual_seed(0), torch.arange(count)[None]
    wrong: dict[str, list[Tensor]] = {"plain": [], "regressed": []}
    for _ in range(DRAWS):
        order = torch.randperm(count, generator=draw)
        few = order[:paired]
        plain = [exact[few].mean(0) for exact, _ in policies]
        mended = [regressed_means(exact[few], known[order], everything)[0] for exact, known in policies]
        for name, means in (("plain", plain), ("regressed", mended)):
            error = torch.stack([mean.abs().mean() for mean in means]) - truth
            wrong[name].append((error[:, None] - error).square().mean())
    return Noise(term, paired, *(float(torch.stack(each).mean().sqrt()) for each in wrong.values()))


def table(model: str, results: Sequence[Result], count: int) -> Table:
    columns = (
        "judge",
        "n",
        "in pairs",
        "guidance to",
        "Spearman",
        "apart",
        "guided",
        "worst half",
        "regret",
        "at 30 %",
        "inversions",
    )
    shown = Table(*columns, title=f"{model}, {count} pictures a policy")
    for each in results:
        spearman = f"{each.spearman:.3f} ({each.low:.2f}..{each.high:.2f})"
        numbers = (each.halves, each.regret, each.cheap_regret)
        rest = (*(f"{number:.3f}" for number in numbers), f"{each.inversions:.1f}")
        of_some = ("" if number is None else f"{number:.3f}" for number in (each.apart, each.guided))
        shown.add_row(each.judge, str(each.n), str(each.paired), str(each.snapped), spearman, *of_some, *rest)
    return shown


def losses_table(model: str, entries: Sequence[Entry], truth: Truth, terms: Terms) -> Table:
    columns = ("policy", "from", "FLOPs", "truth", "lite0", "error", "new default", "old default", "drift")
    shown = Table(*columns, title=f"{model}: losses, best of the new default first")
    new, old = panel(terms), JUDGES[OLD_DEFAULT](terms)
    for index in np.argsort(new):
        entry = entries[index]
        numbers = (truth.loss, truth.distance, terms.error, new, old, terms.drift)
        cells = (f"{column[index]:.3f}" for column in numbers)
        shown.add_row(entry.policy.id[:60], entry.kind, f"{entry.share:.1%}", *cells)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--models", nargs="*", choices=DEMO_NAMES, default=list(DEMO_NAMES))
    parser.add_argument("--snaps", type=int, nargs="*", default=[], help=f"of guidance, such as {SNAPS}")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="of every policy, as far as they are made")
    args = parser.parse_args()
    console = Console(highlight=False, width=180)
    for model in args.models:
        entries = policies(model)
        seen = views(model, entries, args.folder, args.pictures, args.snaps)
        truth = truth_of(seen, torch.arange(args.pictures))
        results = study(seen, truth, entries, args.pictures)
        terms = terms_of(seen, torch.arange(args.pictures), args.pictures)
        console.print(losses_table(model, entries, truth, terms), table(model, results, args.pictures))
        noise = noises(seen, args.pictures)
        for each in noise:
            console.print(
                f"{model}, {each.paired} pairs: {each.term} wrong by {each.plain:.3f}, {each.regressed:.3f} regressed"
            )
        columns = {"truth": truth.loss, **vars(truth), "loss": panel(terms), "before": JUDGES[OLD_DEFAULT](terms)}
        document = {
            "model": model,
            "pictures": args.pictures,
            "policies": [
                {"id": entry.policy.id, "kind": entry.kind, "share": entry.share}
                | {name: round(float(column[index]), 4) for name, column in columns.items()}
                for index, entry in enumerate(entries)
            ],
            "results": [asdict(result) for result in results],
            "noise": [asdict(each) for each in noise],
        }
        write_atomically(RESULTS / f"judges-{model}.json", json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
