"""Is a search as good as a policy that a person writes in one line?

``python -m studies.one_liners MODEL`` evaluates a grid of such policies at budgets of 25, 40 and 60 % of the full run's
FLOPs (:mod:`studies.search.grid`: three solvers, guidance intervals in tenths, as many steps as fit, nothing reused) on
64 tuning prompts; the best three of them with each known recipe on top; and the best of all these on all tuning
prompts. The best three of each kind are then judged on held-out prompts.

With ``--seeds N`` the search of ``postdiff-tune --trials 48`` runs from N seeds at each budget, its best three
candidates are judged on the same held-out prompts, and the best of them is compared with the best of the grid, in pairs
by prompt: by the search's own loss, and by judges that it does not ask (:mod:`studies.judging`). A search is as
good where the interval of the difference does not lie above zero.

Pictures and outcomes are kept in ``runs/one-liners``: the same command goes on where it stopped. Results go to
``studies/results/one_liners-MODEL.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

from autotune.core.interval import Interval
from autotune.cost import parse_budget
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.examples import Examples, choose
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.policy import Policy
from autotune.quality.tensors import write_tensors
from autotune.study.trials import open_study, policy_of, ranked, sqlite_url
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.explore import explore_budgets
from autotune.workflows.progress import Progress
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.setup import Setup, prepare
from studies.cells import keep
from studies.judging import PARTS, Judges
from studies.search.grid import FOLDER, grid, on_top, settings, within
from studies.shipped import BATCH

RESULTS = Path(__file__).with_name("results")
BUDGETS = ("25%", "40%", "60%")
FEW, FINALISTS = 64, 3
GRID, TOPPED = "grid", "grid, recipes on top"
_MOST_STEPS = 40


@dataclass(frozen=True)
class Contender:
    """A policy with its losses on held-out prompts: the search's, and that of judges that it does not ask.

    Attributes:
        source: ``grid``, ``grid, recipes on top`` or ``search, seed N``.
        behind: What it loses more than the best of the grid, with the 95 % interval, by the search's judges.
        behind_elsewhere: The same by the others.
    """

    source: str
    policy: str
    relative: float
    loss: float
    loss_elsewhere: float
    behind: tuple[float, float, float]
    behind_elsewhere: tuple[float, float, float]


class Album:
    """Pictures of policies on the same inputs, each made once and kept."""

    def __init__(self, setup: Setup, examples: Examples, folder: Path) -> None:
        self._setup, self._examples, self._folder = setup, examples, folder
        folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, policy: Policy) -> Tensor:
        """(N, 3, H, W) uint8."""
        path = self._folder / f"{policy.key}.safetensors"
        if not path.is_file():
            made = self._setup.pictures(policy, self._examples.rows, self._examples.seeds)
            write_tensors(path, {"pictures": torch.cat(list(made))}, {"policy": policy.id})
        return load_file(path)["pictures"]

    def batches(self, policy: Policy) -> Iterator[Tensor]:
        yield from self(policy).split(BATCH)

    def part(self, policy: Policy, first: int, last: int) -> Any:
        yield from self(policy)[first:last].split(BATCH)


def best(evaluator: Evaluator, policies: Sequence[Policy], count: int, what: str) -> list[Policy]:
    """The ``count`` policies that lose least."""

    def loss(policy: Policy) -> float:
        return float(evaluator.objective.score(evaluator.outcome(policy).evaluation).loss)

    return sorted(track(policies, what, transient=True), key=loss)[:count]


def lines(setup: Setup, few: Evaluator, whole: Evaluator, share: float) -> dict[str, list[Policy]]:
    """The best of what a person writes in one line, and in two."""
    space, price = setup.proposer.space, setup.pricer
    plain = grid(space, price, share, _MOST_STEPS)
    good = best(few, plain, 2 * FINALISTS, "grid")
    values = {
        policy.key: each
        for each in settings(space)
        if (policy := within(space, price, each, share, _MOST_STEPS)) is not None
    }
    topped = [
        policy
        for line in good[:FINALISTS]
        for _, topped in on_top(space, values[line.key])
        if (policy := within(space, price, topped, share, _MOST_STEPS)) is not None
    ]
    topped = list({policy.key: policy for policy in topped}.values())
    return {
        GRID: best(whole, good, FINALISTS, "best of the grid"),
        TOPPED: best(whole, best(few, topped, 2 * FINALISTS, TOPPED), FINALISTS, f"best, {TOPPED}"),
    }


def searched(model: str, pipe: Any, seed: int, budgets: Sequence[str], folder: Path, trials: int) -> list[list[Policy]]:
    """The best candidates of a search at each budget."""
    options = TuneOptions(batch_size=BATCH, seed=seed, trials=trials, timeout=7200, run_dir=folder)
    setups = prepare(pipe, [parse_budget(budget) for budget in budgets], options)
    folder.mkdir(parents=True, exist_ok=True)
    url = sqlite_url(folder / "study.db")
    studies = [
        open_study(f"{model} {budget}", url, setup.configuration) for budget, setup in zip(budgets, setups, strict=True)
    ]
    with Progress(quiet=True) as progress:
        evaluator = evaluator_for(setups[0], setups[0].tuning, "tuning", folder, progress)
        explore_budgets(setups, studies, evaluator, folder, options, progress)
    return [[policy_of(trial) for trial in ranked(study)[:FINALISTS]] for study in studies]


def compared(
    found: Mapping[str, Sequence[Policy]], setup: Setup, evaluator: Evaluator, judges: Judges
) -> list[Contender]:
    """The best of each source on held-out prompts, against the best of the grid."""
    winners = {source: best(evaluator, policies, 1, source)[0] for source, policies in found.items()}
    seen = {source: evaluator.outcome(policy).evaluation for source, policy in winners.items()}
    elsewhere = {source: judges.judged(policy) for source, policy in winners.items()}

    def numbers(interval: Interval) -> tuple[float, float, float]:
        return round(interval.value, 4), round(interval.low, 4), round(interval.high, 4)

    return [
        Contender(
            source,
            policy.id,
            round(setup.pricer.price(policy).relative, 4),
            round(float(evaluator.objective.score(seen[source]).loss), 4),
            round(elsewhere[source].loss, 4),
            numbers(evaluator.objective.compare(seen[source], seen[GRID])),
            numbers(judges.compare(elsewhere[source], elsewhere[GRID])),
        )
        for source, policy in winners.items()
    ]


def table(model: str, budget: str, found: Sequence[Contender]) -> Table:
    shown = Table(title=f"{model}, {budget}: held-out losses")
    for column in ("from", "policy", "FLOPs", "loss", "behind the grid", "other judges", "behind the grid"):
        shown.add_column(column)
    for each in found:
        behind = [
            "" if each.source == GRID else f"{value:+.3f} ({low:+.3f}..{high:+.3f})"
            for value, low, high in (each.behind, each.behind_elsewhere)
        ]
        shown.add_row(
            each.source, each.policy[:60], f"{each.relative:.1%}", f"{each.loss:.3f}", behind[0],
            f"{each.loss_elsewhere:.3f}", behind[1],
        )  # fmt: skip
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--budgets", nargs="*", default=BUDGETS)
    parser.add_argument("--seeds", type=int, default=0, help="searches")
    parser.add_argument("--trials", type=int, default=48, help="candidates of each")
    parser.add_argument("--held-out-images", type=int, default=480)
    args = parser.parse_args()
    console, folder, pipe = Console(highlight=False, width=180), FOLDER / args.model, demo_pipeline(args.model)
    options = TuneOptions(batch_size=BATCH, held_out_images=args.held_out_images)
    setups = prepare(pipe, [parse_budget(budget) for budget in args.budgets], options)
    first = setups[0]
    sources: list[dict[str, list[Policy]]] = [{} for _ in args.budgets]
    with without_bars(pipe), quiet_optuna(), Progress(quiet=True) as quiet:
        few = evaluator_for(first, choose(first.tuning.rows, FEW, 0), "few", folder, quiet)
        whole = evaluator_for(first, first.tuning, "tuning", folder, quiet)
        for setup, budget, found in zip(setups, args.budgets, sources, strict=True):
            found |= lines(setup, few, whole, float(budget.rstrip("%")) / 100)
        for seed in range(args.seeds):
            # A budget's search is the one that somebody runs who asks for it alone.
            for budget, found in zip(args.budgets, sources, strict=True):
                place = folder / f"search-{args.trials}-{budget.rstrip('%')}-{seed}"
                (found[f"search, seed {seed}"],) = searched(args.model, pipe, seed, [budget], place, args.trials)
        album = Album(first, first.held_out, folder / "album")
        held_out = first.last_judges.evaluator(
            album.part, first.held_out.rows, first.references, first.full, folder / "held-out", intent=first.intent,
            make_exact=partial(_fresh, first),
        )  # fmt: skip
        judges = Judges(first, first.held_out, args.model, folder / "judged", pictures=album.batches)
        cells = []
        for setup, budget, found in zip(setups, args.budgets, sources, strict=True):
            contenders = compared(found, setup, held_out, judges)
            console.print(table(args.model, budget, contenders))
            cells.append({"budget": budget, "contenders": [asdict(each) for each in contenders]})
    settings = {
        "model": args.model,
        "trials": args.trials,
        "held_out_images": args.held_out_images,
        "judges": ", ".join(PARTS),
    }
    keep(cells, RESULTS / f"one_liners-{args.model}.json", settings)


def _fresh(setup: Setup, policy: Policy, first: int, last: int) -> Any:
    """Pictures of exact runs, of which few are needed."""
    return setup.pictures(policy, setup.held_out.rows[first:last], setup.held_out.seeds[first:last])


if __name__ == "__main__":
    main()
