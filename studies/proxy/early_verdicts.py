"""How often does a last round that ends early say what the whole one would not?

``python -m studies.proxy.early_verdicts MODEL RUN [RUN...]`` takes finished runs of ``postdiff-tune`` on a shipped
model and has the held-out pictures judged that their last rounds did not need, in the runs' own folders. Then it
replays last rounds: the captions are drawn anew with replacement, which gives as many replays as one likes, and some
of a run's finalists by chance. Every replay is decided twice, by one look at all pictures with intervals of 95 %, and
by the looks of :mod:`autotune.quality.sequential`, between which finalists may be dropped, each time with the second
opinion.

The first captions have errors in pairs, in a replay as in a last round: they are drawn among themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import optuna
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor

from autotune.cost import parse_budget
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.policy import Policy
from autotune.quality import Baseline, Evaluation, Objective
from autotune.quality.sequential import looks
from autotune.results.finalists import FILE, read_finalists
from autotune.results.ruling import out_of_the_running, rule
from autotune.study.trials import CONFIG, sqlite_url
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.progress import Progress
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.setup import prepare


@dataclass(frozen=True)
class Replay:
    """What was decided: by all pictures, and by looks at ``pictures`` of them.

    Attributes:
        share: Of the pictures of all runs, what the looks needed.
    """

    whole: bool
    early: bool
    pictures: int
    share: float


class World:
    """The judged pictures of a run, of which last rounds are drawn."""

    def __init__(self, pipe: Any, run: Path) -> None:
        found = read_finalists(run / FILE)
        if found is None or not found.candidates:
            raise SystemExit(f"{run} has no last round with candidates")
        (name,) = optuna.get_all_study_names(sqlite_url(run / "study.db"))
        asked = optuna.load_study(study_name=name, storage=sqlite_url(run / "study.db")).user_attrs[CONFIG]
        options = TuneOptions(seed=asked["seed"], images=asked["images"], batch_size=asked["batch_size"])
        (setup,) = prepare(pipe, [parse_budget(asked["budget"])], options)
        with Progress(quiet=True) as quiet:
            self._evaluator = evaluator_for(setup, setup.held_out, "held-out", run, quiet, setup.last_judges)
            self.finalists = tuple(each.policy for each in found.candidates)
            self.fewer_steps = found.fewer_steps.policy
            for policy in (*self.finalists, self.fewer_steps):
                self._evaluator.outcome(policy)
        self.second = setup.second_opinion
        self._baseline = self._evaluator.objective.baseline
        self._paired = self._evaluator.exact_runs.count

    def rows(self, draw: torch.Generator) -> Tensor:
        """Numbers (N,) of pictures drawn with replacement, those with errors in pairs first."""
        count = len(self._evaluator.rows)
        first = torch.randint(self._paired, (self._paired,), generator=draw)
        return torch.cat([first, torch.randint(self._paired, count, (count - self._paired,), generator=draw)])

    def objective(self, rows: Tensor) -> Objective:
        """That of a last round whose pictures are those in ``rows`` (N,), each of a caption of its own."""
        whole = self._baseline
        keys = tuple(str(row) for row in range(len(rows)))
        errors = self._first(whole.coarse_errors, rows)
        further = {name: values[rows] for name, values in whole.coarse_further.items()}
        chance = None if whole.chance is None else whole.chance[rows]
        baseline = Baseline(self._drawn(whole.full, rows), whole.coarse[rows], chance, keys, errors, further)
        return self._evaluator.objective.on(baseline)

    def evaluation(self, policy: Policy, rows: Tensor) -> Evaluation:
        return self._drawn(self._evaluator.outcome(policy).evaluation, rows)

    def _drawn(self, evaluation: Evaluation, rows: Tensor) -> Evaluation:
        alignment = None if evaluation.alignment is None else evaluation.alignment[rows]
        further = {name: values[rows] for name, values in evaluation.further.items()}
        return Evaluation(evaluation.features[rows], alignment, self._first(evaluation.errors, rows), further)

    def _first(self, errors: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        return {name: values[rows[: self._paired]] for name, values in errors.items()}


class Drawn:
    """An evaluator whose pictures are some of a world's, as last rounds ask it."""

    def __init__(self, world: World, rows: Tensor) -> None:
        self._world, self._rows = world, rows
        self.objective = world.objective(rows)

    def outcome(self, policy: Policy) -> Any:
        return SimpleNamespace(evaluation=self._world.evaluation(policy, self._rows))

    @property
    def second(self) -> Any:
        judge = self._world.second
        return None if judge is None else SimpleNamespace(name=judge, objective=self.objective.by(judge))


def replay(world: World, draw: torch.Generator) -> Replay:
    """One last round with some of the finalists on captions drawn anew."""
    rows, order = world.rows(draw), torch.randperm(len(world.finalists), generator=draw).tolist()
    finalists = [
        world.finalists[place] for place in order[: int(torch.randint(1, len(order) + 1, (1,), generator=draw))]
    ]
    planned = looks([str(row) for row in range(len(rows))])
    whole: Any = Drawn(world, rows)
    better = rule(whole, finalists, world.fewer_steps, whole.second).better
    left, dropped, before, made = finalists, list[Evaluation](), 0, 0
    for look in planned:
        seen: Any = Drawn(world, rows[: look.pictures])
        # Of the full run, fewer steps and the finalists that are left.
        made += (2 + len(left)) * (look.pictures - before)
        before = look.pictures
        ruling = rule(seen, left, world.fewer_steps, seen.second, look.level, dropped)
        if ruling.better or ruling.hopeless(look, planned[-1]):
            break
        out = out_of_the_running(seen, left, look, planned[-1])
        dropped += [seen.outcome(each).evaluation for each in out]
        left = [each for each in left if each not in out]
    return Replay(better, ruling.better, look.pictures, made / ((2 + len(finalists)) * len(rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--replays", type=int, default=200)
    args = parser.parse_args()
    pipe = demo_pipeline(args.model)
    with without_bars(pipe), quiet_optuna():
        worlds = [World(pipe, run) for run in track(args.runs, "pictures", transient=True)]
    draw = torch.Generator().manual_seed(0)
    found = [
        replay(worlds[number % len(worlds)], draw) for number in track(range(args.replays), "replays", transient=True)
    ]
    console = Console(highlight=False, width=120)
    console.print(_table(args.model, found))
    console.print(f"{mean(each.share for each in found):.0%} of the pictures are made")


def _table(model: str, found: Sequence[Replay]) -> Table:
    table = Table(
        "what", "of all replays", "95 %", title=f"{model}: last rounds that may end early, {len(found)} replays"
    )
    for what, count in (
        ("better by all pictures", sum(each.whole for each in found)),
        ("better by looks", sum(each.early for each in found)),
        ("better by looks alone", sum(each.early and not each.whole for each in found)),
        ("better by all pictures alone", sum(each.whole and not each.early for each in found)),
        *(
            (f"ended after {pictures} pictures", sum(each.pictures == pictures for each in found))
            for pictures in sorted({each.pictures for each in found})
        ),
    ):
        low, high = binomtest(count, len(found)).proportion_ci()
        table.add_row(what, f"{count / len(found):.1%}", f"{low:.1%} to {high:.1%}")
    return table


if __name__ == "__main__":
    main()
