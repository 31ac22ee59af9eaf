"""How often does a last round that ends early say what the whole one would not?

``python -m studies.proxy.early_verdicts MODEL RUN [RUN...]`` takes the finalists and the fewer steps of finished runs
of ``postdiff-tune`` on a shipped model, has all 480 held-out pictures of each judged, every one of them also in its
pair with the exact run's, and replays last rounds: the captions are drawn anew with replacement, which gives as many
replays as one likes, and some of a run's finalists by chance. Every replay is decided twice, by one look at all
pictures with intervals of 95 %, and by the looks of :mod:`autotune.quality.sequential`, each time with the second
opinion.

Pictures and outcomes are kept in ``runs/early-verdicts``: interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import binomtest
from torch import Tensor

from autotune.core.interval import Interval
from autotune.cost import parse_budget
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.second_opinion import PAIRS
from autotune.models.shipped import DEMO_NAMES
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.policy import Policy
from autotune.quality import Baseline, Evaluation, Objective
from autotune.quality.sequential import Look, looks
from autotune.results.finalists import FILE, read_finalists
from autotune.results.ruling import NO_WORSE, Ruling
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.progress import Progress
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.setup import Setup, prepare
from studies.shipped import BATCH, fast_pipeline

FOLDER = Path("runs") / "early-verdicts"
IMAGES = 480


@dataclass(frozen=True)
class LastRound:
    """What a run's last round compared."""

    finalists: tuple[Policy, ...]
    fewer_steps: Policy


@dataclass(frozen=True)
class Replay:
    """What was decided: by all pictures, and by looks at ``pictures`` of them."""

    whole: bool
    early: bool
    pictures: int


def last_round_of(run: Path) -> LastRound:
    """Of a finished run.

    Raises:
        SystemExit: it is not finished, or has no candidates.
    """
    found = read_finalists(run / FILE)
    if found is None or not found.candidates:
        raise SystemExit(f"{run} has no last round with candidates")
    return LastRound(tuple(each.policy for each in found.candidates), found.fewer_steps.policy)


class World:
    """Judged pictures of which last rounds are drawn."""

    def __init__(self, setup: Setup, evaluator: Evaluator, paired: int) -> None:
        self._setup, self._evaluator, self._paired = setup, evaluator, paired
        self._baseline = evaluator.objective.baseline
        self._references = dict(setup.references)

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
        """As a last round has them, of its first pictures alone."""
        return {name: values[rows[: self._paired]] for name, values in errors.items()}


def decided(world: World, policies: Sequence[Policy], rows: Tensor, look: Look, second: str | None) -> Ruling:
    """What a look at the first of ``rows`` finds of finalists and, last, their rival."""
    first = rows[: look.pictures]
    *finalists, rival = (world.evaluation(policy, first) for policy in policies)
    objective = world.objective(first)
    verdict = objective.verdict(finalists, rival, level=look.level)
    other: Interval | None = None
    if second is not None:
        other = objective.by(second).verdict(finalists, rival, best=verdict.best, level=look.level).difference
    return Ruling(verdict.difference, other, verdict.better and (other is None or other.high < NO_WORSE))


def replay(world: World, policies: Sequence[Policy], rows: Tensor, second: str | None) -> Replay:
    planned = looks([str(row) for row in range(len(rows))])
    whole = decided(world, policies, rows, Look(len(rows), 0.95), second).better
    for look in planned:
        ruling = decided(world, policies, rows, look, second)
        if ruling.better or ruling.hopeless(look, planned[-1]):
            break
    return Replay(whole, ruling.better, look.pictures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--replays", type=int, default=200)
    args = parser.parse_args()
    rounds = [last_round_of(run) for run in args.runs]
    folder, pipe = FOLDER / args.model, fast_pipeline(args.model)
    (setup,) = prepare(pipe, [parse_budget("100%")], TuneOptions(batch_size=BATCH, held_out_images=IMAGES))
    judges = replace(setup.last_judges, error_pictures=IMAGES)
    draw, found = torch.Generator().manual_seed(0), list[Replay]()
    with without_bars(pipe), quiet_optuna(), Progress(quiet=True) as quiet:
        evaluator = evaluator_for(setup, setup.held_out, "held-out", folder, quiet, judges)
        wanted = {policy.key: policy for each in rounds for policy in (*each.finalists, each.fewer_steps)}
        for policy in track(wanted.values(), "pictures", transient=True):
            evaluator.outcome(policy)
        world = World(setup, evaluator, PAIRS)
        for _ in track(range(args.replays), "replays", transient=True):
            drawn = rounds[int(torch.randint(len(rounds), (1,), generator=draw))]
            order = torch.randperm(len(drawn.finalists), generator=draw).tolist()
            some = order[: int(torch.randint(1, len(order) + 1, (1,), generator=draw))]
            rows = torch.randint(IMAGES, (IMAGES,), generator=draw)
            policies = [drawn.finalists[place] for place in some] + [drawn.fewer_steps]
            found.append(replay(world, policies, rows, setup.second_opinion))
    Console(highlight=False, width=120).print(_table(args.model, found))


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
