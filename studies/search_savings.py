"""What early stopping and shared prefixes spare a search, and whether it finds as good a policy.

``python -m studies.search_savings MODEL`` runs the same search from several seeds twice: with both, and without either.
Printed for each seed: denoiser FLOPs of all pictures that were made (exact: calls that a shared prefix skipped are not
counted, those of pruned candidates are), as multiples of the full run's for one picture; and the difference of the
two winners' losses on captions that neither search has seen, paired, with a 95 % interval. Pictures are kept in
``runs/savings``: the same command goes on where it stopped. Results go to ``studies/results/search_savings-MODEL.json``
after each seed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autotune.core.records import write_atomically
from autotune.cost import parse_budget
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.options import SetupOptions, TuneOptions
from autotune.options.searching import PREFIX_MEMORY
from autotune.pipelines.bars import without_bars
from autotune.study.trials import enqueue_recipes, evaluated, open_study, policy_of, ranked, sqlite_url
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.explore import explore
from autotune.workflows.progress import Progress
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.setup import Setup, prepare
from autotune.workflows.spending import spending
from studies.shipped import BATCH

RESULTS = Path(__file__).with_name("results")
FOLDER = Path("runs") / "savings"
BUDGET = "25%"
SEEDS, PICTURES, HELD_OUT = 3, 128, 480
TRIALS = TuneOptions().trials


@dataclass(frozen=True)
class Search:
    """One search. ``flops`` are in full runs of one picture."""

    candidates: int
    pictures: int
    flops: float
    winner: str
    loss: float


@dataclass(frozen=True)
class Pair:
    """``apart`` is the loss of the sparing search's winner minus the other's, on unseen captions."""

    seed: int
    sparing: Search
    plain: Search
    apart: tuple[float, float, float]

    @property
    def share(self) -> float:
        """FLOPs with early stopping and shared prefixes over those without."""
        return self.sparing.flops / self.plain.flops


def searched(model: str, pipe: Any, seed: int, folder: Path, *, sparing: bool) -> tuple[Setup, Search, Any]:
    """Run or finish one search; its winner too."""
    (setup,) = prepare(
        pipe,
        [parse_budget(BUDGET)],
        SetupOptions(
            batch_size=BATCH,
            images=PICTURES,
            held_out_images=HELD_OUT,
            seed=seed,
            early_stopping=sparing,
            prefix_memory=PREFIX_MEMORY if sparing else 0,
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    study = open_study("search", sqlite_url(folder / "study.db"), setup.configuration)
    with Progress() as progress:
        evaluator = evaluator_for(setup, setup.tuning, "tuning", folder, progress)
        enqueue_recipes(study, [(recipe.name, recipe.proposal.values) for recipe in setup.recipes])
        explore(setup, study, evaluator, folder, TRIALS, 7200, seed, progress)
    trials = evaluated(study)
    spent = spending(trials, PICTURES)
    best = ranked(study)[0]
    full = setup.pricer.full_cost().flops
    search = Search(spent.candidates, spent.pictures, spent.spent / full, policy_of(best).id, float(best.values[0]))
    return setup, search, policy_of(best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args = parser.parse_args()
    console, pipe = Console(highlight=False, width=150), demo_pipeline(args.model)
    table = Table("seed", "FLOPs with", "without", "share", "winner with", "without", "loss apart, unseen captions")
    pairs = []
    with without_bars(pipe), quiet_optuna():
        for seed in range(args.seeds):
            folder = FOLDER / args.model / str(seed)
            setup, sparing, found = searched(args.model, pipe, seed, folder / "sparing", sparing=True)
            _, plain, other = searched(args.model, pipe, seed, folder / "plain", sparing=False)
            with Progress() as progress:
                unseen = evaluator_for(setup, setup.held_out, "held-out", folder, progress)
                apart = unseen.objective.compare(unseen.outcome(found).evaluation, unseen.outcome(other).evaluation)
            pair = Pair(seed, sparing, plain, (apart.value, apart.low, apart.high))
            pairs.append(pair)
            interval = f"{apart.value:+.3f} ({apart.low:+.3f}..{apart.high:+.3f})"
            flops = (f"{sparing.flops:,.0f}", f"{plain.flops:,.0f}", f"{pair.share:.0%}")
            table.add_row(str(seed), *flops, sparing.winner, plain.winner, interval)
            document = {
                "model": args.model,
                "budget": BUDGET,
                "candidates": TRIALS,
                "pairs": [asdict(each) | {"share": each.share} for each in pairs],
            }
            write_atomically(RESULTS / f"search_savings-{args.model}.json", json.dumps(document, indent=1) + "\n")
    console.print(table)


if __name__ == "__main__":
    main()
