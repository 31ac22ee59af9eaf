"""How often does the whole panel call a policy better that is not, and how small a difference does it find?

``python -m studies.proxy.panel_verdicts emoji-unet`` repeats two experiments of :mod:`studies.proxy.verdicts`, on the
same pictures, by all judges of a search and by the method that verdicts use:

- *null*, for 6 to 128 captions: finalists and fewer steps are 8 steps from other noise for every caption, and the first
  128 pictures are compared with the full run's from the same noise;
- *power*, at 480 captions: the first finalist is the full run and fewer steps are its 8 steps, from the same noise, the
  others are full runs from other noise. Constants make all of them equal on all captions but for the first, which is
  truly better by so much. A full run's error to itself is none, so it varies less than a policy's would.

Pictures, features and results are kept in ``--folder``: interrupted, the same command goes on.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from autotune.evaluation.judges import beside_statistics
from autotune.evaluation.second_opinion import PAIRS
from autotune.models.shipped import demo_assets
from autotune.quality import Baseline, Evaluation, Objective, Reference, shuffled_alignment
from autotune.quality.fidelity import feature_distances
from autotune.quality.panel import CROPS, DEFAULT_PANEL, DISTANCE_TEXTURES, DRIFT, ERROR, Panel
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
    drawn,
    kept,
    look,
)

PANEL = Panel(DEFAULT_PANEL).without(CROPS)


class LastRounds:
    """Of a model, drawn from what was seen."""

    def __init__(self, name: str, seen: Seen) -> None:
        self._seen = seen
        reference = Path(demo_assets(name).reference)
        self._reference = Reference.load(reference)
        self._textures = Reference.load(beside_statistics(reference, DISTANCE_TEXTURES))
        rows, others = torch.arange(PROMPTS), torch.tensor([[1], [2], [3]]).expand(-1, PROMPTS)
        # Of all captions there are, and not of those that come first.
        self._gains = -self._with_the_same_noise(rows, others, pairs=PROMPTS).estimates

    def null(self, count: int, draw: torch.Generator) -> Sample:
        """Finalists and fewer steps that are the same in law, on ``count`` captions."""
        return accepted(lambda: self._alike(torch.randperm(PROMPTS, generator=draw)[:count], draw))

    def equal(self, draw: torch.Generator) -> Sample:
        """Full runs and their 8 steps, moved so that no loss truly differs, on captions drawn with replacement."""
        rows = drawn(draw)
        others = (torch.rand(RUNS - 1, len(rows), generator=draw).argsort(0) + 1)[:3]
        return self._with_the_same_noise(rows, others).moved(self._gains)

    def _alike(self, rows: Tensor, draw: torch.Generator) -> Sample:
        full, *others = torch.rand(RUNS, len(rows), generator=draw).argsort(0)
        runs = [self._fewer(run, rows) for run in others]
        return Sample.of(self._objective(full, rows), runs, torch.arange(len(rows)))

    def _with_the_same_noise(self, rows: Tensor, others: Tensor, pairs: int = PAIRS) -> Sample:
        first = torch.zeros_like(rows)
        *finalists, baseline = (first, *others)
        runs = [*(self._full(run, rows, pairs) for run in finalists), self._fewer(first, rows, pairs)]
        return Sample.of(self._objective(baseline, rows, pairs), runs, torch.arange(len(rows)))

    def _objective(self, run: Tensor, rows: Tensor, pairs: int = PAIRS) -> Objective:
        seen, full = self._seen, self._full(run, rows, pairs)
        bad = self._evaluation(seen.coarse, seen.coarse_textures, run, rows, pairs)
        chance = shuffled_alignment(full.features, seen.text[rows])
        # A caption drawn twice counts as two.
        keys = tuple(str(row) for row in range(len(rows)))
        baseline = Baseline(full, bad.features, chance, keys, bad.errors, bad.further)
        return Objective(self._reference, baseline, weights=PANEL, references={DISTANCE_TEXTURES: self._textures})

    def _full(self, run: Tensor, rows: Tensor, pairs: int = PAIRS) -> Evaluation:
        return self._evaluation(self._seen.full, self._seen.full_textures, run, rows, pairs)

    def _fewer(self, run: Tensor, rows: Tensor, pairs: int = PAIRS) -> Evaluation:
        return self._evaluation(self._seen.fewer, self._seen.fewer_textures, run, rows, pairs)

    def _evaluation(self, features: Tensor, of_textures: Tensor, run: Tensor, rows: Tensor, pairs: int) -> Evaluation:
        """Of each of ``rows`` (P,) the picture of its ``run`` (P,), the first in pairs with the full run's."""
        seen, paired, at = self._seen, run[:pairs], rows[:pairs]
        plain = Evaluation.of(features[run, rows], seen.text[rows])
        errors = {
            ERROR: feature_distances(features[paired, at], seen.full[paired, at]),
            DRIFT: of_textures[paired, at] - seen.full_textures[paired, at],
        }
        return Evaluation(plain.features, plain.alignment, errors, {DISTANCE_TEXTURES: of_textures[run, rows]})


def is_better(sample: Sample) -> bool:
    """Whether the best finalist is called better than fewer steps."""
    return simultaneous(sample.estimates, sample.pseudo, LEVEL)[int(sample.estimates.argmin())].high < 0


def null(rounds: LastRounds, count: int, repeats: int) -> int:
    """In how many repeats on ``count`` captions the best of equals is called better."""
    draw = torch.Generator().manual_seed(0)
    return sum(is_better(rounds.null(count, draw)) for _ in range(repeats))


def power(rounds: LastRounds, repeats: int) -> list[int]:
    """In how many repeats each of :data:`SHIFTS` is found."""
    draw, found = torch.Generator().manual_seed(0), [0] * len(SHIFTS)
    for _ in range(repeats):
        sample = rounds.equal(draw)
        for place, shift in enumerate(SHIFTS):
            by = torch.zeros(FINALISTS, dtype=torch.float64)
            by[0] = -shift
            found[place] += is_better(sample.moved(by))
    return found


def main() -> None:
    given = asked(__doc__)
    folder: Path = given.folder
    rounds = LastRounds(given.model, look(given.model, folder))

    counted = {
        count: kept(folder / f"panel-null-{count}-{given.repeats}.json", partial(null, rounds, count, given.repeats))
        for count in COUNTS
    }
    path = folder / f"panel-power-{given.repeats_of_power}.json"
    found = kept(path, partial(power, rounds, given.repeats_of_power))
    console = Console(highlight=False, width=140)
    title = f"{given.model}: called better by the whole panel, {given.repeats} repeats of null"
    table = Table("experiment", *(f"{count} captions" for count in counted), title=title)
    table.add_row("null", *(f"{better / given.repeats:.1%}" for better in counted.values()))
    console.print(table)
    title = f"{PROMPTS} captions, {given.repeats_of_power} repeats, by the true difference"
    table = Table("experiment", *(f"{shift:g}" for shift in SHIFTS), title=title)
    table.add_row("power", *(f"{better / given.repeats_of_power:.0%}" for better in found))
    console.print(table)


if __name__ == "__main__":
    main()
