"""Fewer denoising steps or cheaper ones? The question of Du et al. 2025 (arXiv 2508.06160), for a shipped model.

At each budget, the best that a search finds of three ways to keep to it: fewer steps (each at full cost, solver and
noise levels searched too), cheaper steps (as many as the full run has, all else searched), and both. Candidates are
judged on tuning prompts; the best of each arm are compared on held-out prompts, in pairs.

``python -m studies.steps_vs_cost`` prints a table and the verdict, and writes
``studies/results/steps_vs_cost-MODEL.json`` and a page with plots into ``runs/steps-vs-cost-MODEL``. Interrupted, the
same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from autotune.cli.tune import show_tradeoff
from autotune.core.errors import PostDiffError
from autotune.core.interrupts import Interrupted, deferred
from autotune.core.records import write_atomically
from autotune.cost import parse_budget
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.options import SetupOptions
from autotune.pipelines.bars import without_bars
from autotune.report.page import render_tradeoff
from autotune.results.tradeoff import Tradeoff
from autotune.study.trials import sqlite_url
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.progress import Progress
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.setup import prepare
from autotune.workflows.tradeoff import BUDGETS, TRIALS, run_tradeoff_study
from studies.shipped import BATCH

RESULTS = Path(__file__).parent / "results"
IMAGES, HELD_OUT_IMAGES = 64, 240


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=DEMO_NAMES, default="emoji-unet")
    parser.add_argument("--budget", action="append", help=f"share of the full run's FLOPs; by default {BUDGETS}")
    parser.add_argument("--trials", type=int, default=TRIALS, help="candidates of each arm and budget besides recipes")
    parser.add_argument("--images", type=int, default=IMAGES, help="most tuning pictures a candidate")
    parser.add_argument("--held-out-images", type=int, default=HELD_OUT_IMAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="the run's folder, by default runs/steps-vs-cost-MODEL")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    args = parser.parse_args()
    folder = args.out or Path("runs") / f"steps-vs-cost-{args.model}"
    try:
        found = study(
            args.model,
            folder,
            budgets=args.budget or BUDGETS,
            trials=args.trials,
            images=args.images,
            held_out_images=args.held_out_images,
            seed=args.seed,
        )
    except PostDiffError as error:
        sys.exit(f"{error}")
    found.save(args.results / f"steps_vs_cost-{args.model}.json")
    write_atomically(folder / "steps_vs_cost.html", render_tradeoff(found))
    show_tradeoff(found)
    print(f"Plots: {folder / 'steps_vs_cost.html'}")


def study(
    model: str,
    folder: Path,
    *,
    budgets: Sequence[str] = BUDGETS,
    trials: int = TRIALS,
    images: int = IMAGES,
    held_out_images: int = HELD_OUT_IMAGES,
    seed: int = 0,
    quiet: bool = False,
) -> Tradeoff:
    """The answer for a shipped model; everything found on the way is kept in ``folder``.

    Raises:
        InputError: an argument cannot be used, or the folder holds a study with other settings.
        Interrupted: Ctrl-C; the same call goes on there.
    """
    (setup,) = prepare(
        demo_pipeline(model),
        [parse_budget("100%")],
        SetupOptions(batch_size=BATCH, images=images, held_out_images=held_out_images, seed=seed),
    )
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with quiet_optuna(), without_bars(setup.pipe), deferred(), Progress(quiet=quiet) as progress:
            return run_tradeoff_study(
                setup,
                evaluator_for(setup, setup.tuning, "tuning", folder, progress),
                evaluator_for(setup, setup.held_out, "held-out", folder, progress),
                folder,
                name=model,
                url=sqlite_url(folder / "study.db"),
                progress=progress,
                budgets=budgets,
                trials=trials,
            )
    except KeyboardInterrupt:
        raise Interrupted(folder) from None


if __name__ == "__main__":
    main()
