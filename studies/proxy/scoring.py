"""What judging takes of a candidate's evaluation.

``python -m studies.proxy.scoring MODEL`` evaluates a policy at 25 and one at 40 % of the full run's FLOPs as a search
does, on 256 pictures each, and prints the share of the time in which no pictures were made: networks, distances,
wavelets, intervals and files. Exact runs are made before. A ratio of two times of one run, on whatever else the machine
does.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autotune.cost import parse_budget
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.options import SetupOptions
from autotune.pipelines.bars import without_bars
from autotune.policy import Policy
from autotune.workflows.setup import Setup, prepare
from studies.search.grid import grid
from studies.shipped import shipped

PICTURES = 256
BUDGETS = {"25%": 0.25, "40%": 0.4}
_POLICIES = 1
_MOST_STEPS = 40
# Of a candidate's interval, as searches take.
_RESAMPLES = 200


class Clock:
    """Makes pictures and notes how long that took."""

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self.seconds = 0.0

    def __call__(self, policy: Policy, first: int, last: int) -> Iterator[Any]:
        rows, seeds = self._setup.tuning.rows[first:last], self._setup.tuning.seeds[first:last]
        batches = self._setup.pictures(policy, rows, seeds)
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.seconds += time.perf_counter() - started
            if batch is None:
                return
            yield batch


def share(setup: Setup, policies: list[Policy]) -> tuple[float, float]:
    """Seconds of all, and the share of them that judging took."""
    clock = Clock(setup)
    with tempfile.TemporaryDirectory() as folder, without_bars(setup.pipe):
        evaluator = setup.judges.evaluator(
            clock,  # type: ignore[arg-type]
            setup.tuning.rows,
            setup.references,
            setup.full,
            Path(folder),
            intent=setup.intent,
        )
        for policy in policies:
            evaluator.exact_runs.of(policy, evaluator.exact_runs.count)
        clock.seconds, started = 0.0, time.perf_counter()
        for policy in policies:
            outcome = evaluator.outcome(policy)
            evaluator.objective.interval(outcome.evaluation, resamples=_RESAMPLES)
        seconds = time.perf_counter() - started
    return seconds, 1 - clock.seconds / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=shipped, default=list(DEMO_NAMES))
    args = parser.parse_args()
    table = Table("model", "budget", "seconds a candidate", "judging")
    for model in args.models:
        pipe = demo_pipeline(model)
        for budget, part in BUDGETS.items():
            (setup,) = prepare(pipe, [parse_budget(budget)], SetupOptions(images=PICTURES, held_out_images=8))
            lines = grid(setup.proposer.space, setup.pricer, part, _MOST_STEPS)
            policies = lines[:: max(len(lines) // _POLICIES, 1)][:_POLICIES]
            seconds, judging = share(setup, policies)
            table.add_row(model, budget, f"{seconds / len(policies):.1f}", f"{judging:.0%}")
    Console().print(table)


if __name__ == "__main__":
    main()
