"""How often does the last round call a policy better that is not, and how small a difference does it find?

``python -m studies.proxy.verdicts emoji-unet`` makes five full runs of 480 held-out captions that differ by their seeds
alone, and 8 steps from the noise of each. Then it repeats experiments with every method, by distance and alignment
(:mod:`studies.proxy.panel_verdicts` repeats two of them by the whole panel):

- *null*, for 6 to 128 captions: of every caption each of the five pictures goes to one of full run, fewer steps and
  three finalists, by chance, so that all are the same in law. The best finalist is called better in at most 2.5 %, if
  the method holds;
- *unlike*: the finalists are full runs, the first from the same noise as fewer steps, which are 8 steps; alignments are
  moved by a constant so that on all 480 captions no loss differs. What is called better is so by chance or by the bias
  that few pictures give a distance;
- *power*, at 480 captions: the loss of one finalist of three is truly lower than that of fewer steps by so much. Either
  all pictures are from seeds of their own, or that finalist is the full run and fewer steps its 8 steps, from the same
  noise, as in a search. The difference is set by moving alignments by a constant, which leaves everything else alone.

At last, with no pictures behind them: finalists that lose every tenth caption's picture, at a loss of 1.5, and are
better in all others by as much in the mean. While few of these captions are seen, they look better to any method.

Methods: the bootstrap interval of the best finalist, as if it had not been chosen; the bootstrap of the largest of all
finalists' distances in standard errors; the jackknife with a multivariate t distribution, which is
:mod:`autotune.quality.simultaneous`; its variant that resamples pseudo-values and studentises each resample; and
choosing on one half of the captions and confirming on the other.

Pictures, features and results are kept in ``--folder``: interrupted, the same command goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from autotune.models.shipped import demo_assets
from autotune.quality import Baseline, Evaluation, Objective, Reference, shuffled_alignment
from autotune.quality.simultaneous import simultaneous
from studies.proxy.verdict_pictures import (
    COUNTS,
    FINALISTS,
    LEVEL,
    PROMPTS,
    RUNS,
    SHIFTS,
    Sample,
    Seen,
    accepted,
    asked,
    differences,
    drawn,
    kept,
    look,
)

RESAMPLES = 400


@dataclass(frozen=True, eq=False)
class Case:
    """What every method needs to know of a last round.

    Attributes:
        whole: Of all captions.
        halves: Of either half of them.
        resampled: (B, K) differences on captions drawn with replacement.
    """

    whole: Sample
    halves: tuple[Sample, Sample]
    resampled: Tensor

    @staticmethod
    def of(objective: Objective, runs: Sequence[Evaluation]) -> Case:
        rows = torch.arange(len(runs[0]))
        drawn = torch.randint(len(rows), (RESAMPLES, len(rows)), generator=torch.Generator().manual_seed(0))
        first, second = (Sample.of(objective, runs, half) for half in rows.tensor_split(2))
        replicates = differences(objective.losses(runs, drawn))
        return Case(Sample.of(objective, runs, rows), (first, second), replicates)

    def moved(self, by: Tensor) -> Case:
        """The same where the truth lies elsewhere by so much (K,): a constant on every picture's alignment."""
        first, second = (half.moved(by) for half in self.halves)
        return Case(self.whole.moved(by), (first, second), self.resampled + by)

    @property
    def best(self) -> int:
        return int(self.whole.estimates.argmin())


Bounds = tuple[float, float]
"""Of the interval of the best finalist's difference from fewer steps."""


def uncorrected(case: Case) -> Bounds:
    estimate, replicates = case.whole.estimates[case.best], case.resampled[:, case.best]
    moved = replicates - replicates.mean() + estimate
    low, high = moved.quantile(torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=moved.dtype)).tolist()
    return low, high


def largest(case: Case) -> Bounds:
    estimate, error = float(case.whole.estimates[case.best]), case.resampled.std(0)
    distances = ((case.resampled - case.resampled.mean(0)) / error).abs().amax(1)
    reach = float(distances.quantile(LEVEL) * error[case.best])
    return estimate - reach, estimate + reach


def jackknife(case: Case) -> Bounds:
    found = simultaneous(case.whole.estimates, case.whole.pseudo, LEVEL)[case.best]
    return found.low, found.high


def studentised(case: Case) -> Bounds:
    estimate, pseudo = float(case.whole.estimates[case.best]), case.whole.pseudo
    count = len(pseudo)
    drawn = pseudo[torch.randint(count, (2000, count), generator=torch.Generator().manual_seed(0))]
    error = (drawn.std(1) / count**0.5).clamp(min=1e-12)
    distances = (drawn.mean(1) - pseudo.mean(0)) / error
    own = float(pseudo[:, case.best].std() / count**0.5)
    above, below = distances.amax(1).quantile((1 + LEVEL) / 2), distances.amin(1).quantile((1 - LEVEL) / 2)
    return estimate - float(above) * own, estimate - float(below) * own


def two_halves(case: Case) -> Bounds:
    choice, confirmation = case.halves
    best = int(choice.estimates.argmin())
    alone = slice(best, best + 1)
    (found,) = simultaneous(confirmation.estimates[alone], confirmation.pseudo[:, alone], LEVEL)
    return found.low, found.high


METHODS: Mapping[str, Callable[[Case], Bounds]] = {
    "not corrected": uncorrected,
    "largest, bootstrap": largest,
    "largest, jackknife": jackknife,
    "largest, studentised": studentised,
    "two halves": two_halves,
}


class Cases:
    """Last rounds of a model, drawn from what was seen."""

    def __init__(self, name: str, seen: Seen) -> None:
        self._seen = seen
        self._reference = Reference.load(demo_assets(name).reference)
        rows = torch.arange(PROMPTS)
        finalist, fewer = self._runs(rows, [seen.full[0], seen.fewer[0]])
        objective = self._objective(rows, seen.full[1], seen.coarse[1])
        losses = objective.losses([finalist, fewer], rows[None])[0]
        self.gain = float(losses[1] - losses[0])
        """Of all steps over 8, on all captions."""

    def null(self, count: int, draw: torch.Generator) -> Case:
        """All runs the same in law, on ``count`` captions."""
        return accepted(lambda: self._alike(torch.randperm(PROMPTS, generator=draw)[:count], draw))

    def with_seeds_apart(self, draw: torch.Generator) -> Case:
        """All runs the same in law, on as many captions as there are, drawn with replacement."""
        return self._alike(drawn(draw), draw)

    def unlike(self, count: int, draw: torch.Generator) -> Case:
        """Finalists of all steps, the first from the same noise as fewer steps; moved so that no loss truly differs."""
        return accepted(lambda: self._with_the_same_noise(torch.randperm(PROMPTS, generator=draw)[:count], draw))

    def with_the_same_noise(self, draw: torch.Generator) -> Case:
        """The same, on as many captions as there are, drawn with replacement."""
        return self._with_the_same_noise(drawn(draw), draw)

    def _with_the_same_noise(self, rows: Tensor, draw: torch.Generator) -> Case:
        seen = self._seen
        first, second, third = (torch.rand(RUNS - 1, len(rows), generator=draw).argsort(0) + 1)[:3]
        finalists = [seen.full[0, rows], seen.full[first, rows], seen.full[second, rows]]
        objective = self._objective(rows, seen.full[third, rows], seen.coarse[third, rows])
        case = Case.of(objective, self._runs(rows, [*finalists, seen.fewer[0, rows]]))
        return case.moved(torch.full((FINALISTS,), self.gain, dtype=torch.float64))

    def _alike(self, rows: Tensor, draw: torch.Generator) -> Case:
        runs = torch.rand(RUNS, len(rows), generator=draw).argsort(0)
        full, *others = (self._seen.full[each, rows] for each in runs)
        objective = self._objective(rows, full, self._seen.coarse[runs[0], rows])
        return Case.of(objective, self._runs(rows, others))

    def _runs(self, rows: Tensor, features: Sequence[Tensor]) -> list[Evaluation]:
        return [Evaluation.of(each, self._seen.text[rows]) for each in features]

    def _objective(self, rows: Tensor, full: Tensor, bad: Tensor) -> Objective:
        text = self._seen.text[rows]
        # A caption drawn twice counts as two: those drawn from have more of the kind.
        keys = tuple(str(row) for row in range(len(rows)))
        baseline = Baseline(Evaluation.of(full, text), bad, shuffled_alignment(full, text), keys)
        return Objective(self._reference, baseline)


def rarely_lost(count: int, repeats: int, share: float = 0.1, loss: float = 1.5, spread: float = 0.17) -> float:
    """How often the jackknife calls finalists better that lose a ``share`` of their pictures and are truly no better.

    Args:
        count: Of captions.
        repeats: Of the experiment.
        share: Of pictures that are lost.
        loss: Of each of them.
        spread: Of losses over captions, as in the null experiment.
    """
    draw, better = torch.Generator().manual_seed(0), 0
    for _ in range(repeats):
        losses = spread * torch.randn(count, FINALISTS + 1, generator=draw, dtype=torch.float64)
        lost = torch.rand(count, FINALISTS, generator=draw, dtype=torch.float64) < share
        losses[:, :-1] += loss * (lost.double() - share)
        apart = differences(losses)
        found = simultaneous(apart.mean(0), apart, LEVEL)[int(apart.mean(0).argmin())]
        better += found.high < 0
    return better / repeats


Found = dict[str, list[list[Bounds]]]
"""By method, for every repeat and every shift."""


def experiment(make: Callable[[torch.Generator], Case], repeats: int, shifts: Sequence[float]) -> Found:
    """What every method says, the first finalist being better by each of ``shifts`` in turn."""
    draw = torch.Generator().manual_seed(0)
    found: Found = {method: [] for method in METHODS}
    by = torch.zeros(FINALISTS, dtype=torch.float64)
    for _ in range(repeats):
        case = make(draw)
        for method, bounds in METHODS.items():
            found[method].append([bounds(case.moved(by.index_fill(0, torch.tensor(0), -shift))) for shift in shifts])
    return found


def table_of(found: Sequence[Found], heads: Sequence[str], title: str, form: str) -> Table:
    """Share of repeats in which each method says better, a column for each shift of each of what was found."""
    table = Table("method", *heads, title=title)
    for method in METHODS:
        said = torch.cat([torch.tensor(each[method])[..., 1] < 0 for each in found], 1)
        table.add_row(method, *(format(share, form) for share in said.double().mean(0).tolist()))
    return table


def main() -> None:
    given = asked(__doc__)
    folder: Path = given.folder
    cases = Cases(given.model, look(given.model, folder))
    console = Console(highlight=False, width=140)

    def found_of(what: str, make: Callable[[torch.Generator], Case], repeats: int, shifts: Sequence[float]) -> Found:
        found: Found = kept(folder / f"{what}-{repeats}.json", lambda: experiment(make, repeats, shifts))
        return found

    for what, of_count in (("null", cases.null), ("unlike", cases.unlike)):
        found = [found_of(f"{what}-{count}", partial(of_count, count), given.repeats, [0.0]) for count in COUNTS]
        title = f"{given.model}: {what}, no better and called better in {given.repeats} repeats, by captions"
        console.print(table_of(found, [str(count) for count in COUNTS], title, ".2%"))
    shares = ", ".join(f"{rarely_lost(count, given.repeats):.1%} at {count}" for count in COUNTS)
    console.print(f"a tenth of the pictures lost, called better though no better: {shares}")
    for what, make in (("seeds apart", cases.with_seeds_apart), ("the same noise", cases.with_the_same_noise)):
        power = found_of(what.replace(" ", "-"), make, given.repeats_of_power, SHIFTS)
        title = f"{given.model}: called better at {PROMPTS} captions, {what}, by the true difference"
        console.print(table_of([power], [f"{shift:g}" for shift in SHIFTS], title, ".0%"))


if __name__ == "__main__":
    main()
