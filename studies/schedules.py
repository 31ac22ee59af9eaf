"""Where steps lie, and in which of them a cache computes: by hand, by dynamic programming, and polished.

``python -m studies.schedules MODEL`` compares, by the error of final latents to the exact run from the same noise
(relative, squared), on 64 prompts that nothing was fitted on:

- **computing steps** of one cache rule, as many of them as 25, 40 and 60 % of the full run's FLOPs pay for: evenly
  apart; by dynamic programming over how outputs change along a full run and how far each step goes
  (:mod:`autotune.search.sensitivity`); and the
  better of these two after hill climbing on the errors of eight other prompts (:mod:`studies.search.polish`);
- **noise levels** of fewer steps, for each solver that takes a list: its own, the best of nine skews, and fitted on
  the same eight prompts (:mod:`studies.search.fitted_noise_levels`).

Differences to the first of each row are in pairs by prompt, with 95 % bootstrap intervals. Results go to
``studies/results/schedules-MODEL.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from autotune.core.records import write_atomically
from autotune.cost import Pricer
from autotune.evaluation.generation import picture_maker
from autotune.evaluation.inputs import rows_of_prompts
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.pipelines.bars import without_bars
from autotune.policy import CacheRule, Policy
from autotune.search.sensitivity import best_compute_steps, measure_sensitivity
from search_spaces import space_for
from search_spaces.solvers import MOST_SKEW
from search_spaces.transformer import TransformerSpace
from studies.latents import errors, latents, mean
from studies.search.fitted_noise_levels import fitted_noise_levels
from studies.search.polish import computing_step_shifts, polished
from studies.search.recipes import evenly

RESULTS = Path(__file__).with_name("results")
BUDGETS = (0.25, 0.4, 0.6)
STEPS = (5, 8)
# Those in between decided between criteria of the dynamic programme.
FITTED, DECIDED, OTHERS = 8, 32, 64
EVALUATIONS = 40


@dataclass(frozen=True)
class Compared:
    """A schedule on the prompts that nothing was fitted on.

    Attributes:
        how: How it was found.
        policy: Its id.
        relative: FLOPs as a share of the full run's.
        error: Mean relative squared error of the latents.
        apart: The mean difference to the row's first schedule, with its 95 % interval.
        evaluations: Policies whose latents were made to find it.
    """

    how: str
    policy: str
    relative: float
    error: float
    apart: tuple[float, float, float]
    evaluations: int


class LatentErrors:
    """A shipped model; errors on the prompts to fit on, and on the others. Latents of a policy are made once."""

    def __init__(self, model: str) -> None:
        self.pipe = demo_pipeline(model)
        assets = demo_assets(model)
        self.full = Policy(steps=assets.full_steps)
        self.space: Any = space_for(self.pipe)
        self.pricer = Pricer(self.pipe, full_steps=assets.full_steps)
        self.prompts = assets.tuning_prompts[: FITTED + DECIDED + OTHERS]
        self._made: dict[tuple[str, bool], Tensor] = {}

    def error(self, policy: Policy, exact: Policy) -> float:
        """The mean on the prompts to fit on."""
        return float(errors(self._latents(policy, fitting=True), self._latents(exact, fitting=True)).mean())

    def compared(self, found: Mapping[str, tuple[Policy, int]], exact: Policy) -> list[Compared]:
        """On the other prompts."""
        wanted = self._latents(exact, fitting=False)
        seen = {how: errors(self._latents(policy, fitting=False), wanted) for how, (policy, _) in found.items()}
        first = next(iter(seen.values()))
        return [
            Compared(
                how,
                policy.id,
                round(self.pricer.price(policy).relative, 4),
                round(float(seen[how].mean()), 5),
                mean(seen[how] - first),
                tried,
            )
            for how, (policy, tried) in found.items()
        ]

    def _latents(self, policy: Policy, *, fitting: bool) -> Tensor:
        key = policy.key, fitting
        if key not in self._made:
            first = 0 if fitting else FITTED + DECIDED
            prompts = self.prompts[:FITTED] if fitting else self.prompts[first:]
            self._made[key] = latents(self.pipe, policy, prompts, first_seed=first)
        return self._made[key]


def computing_steps(measured: LatentErrors, budget: float) -> list[Compared]:
    """Evenly, by dynamic programming and polished; as many steps as let a quarter of them or more compute."""
    space = measured.space
    units = space.layers if isinstance(space, TransformerSpace) else space.reusable[-1:]

    def with_steps(steps: int, compute: Sequence[int]) -> Policy:
        return Policy(steps=steps, cache=(CacheRule(units=units, compute_steps=tuple(compute)),))

    def most_computing(steps: int) -> int:
        counts = range(steps - 1, 0, -1)
        fits = (n for n in counts if measured.pricer.price(with_steps(steps, evenly(steps, n))).relative <= budget)
        return next(fits, 0)

    steps = next(n for n in range(measured.full.steps, 0, -1) if 4 * most_computing(n) >= n)
    count, exact = most_computing(steps), Policy(steps=steps)
    rows = rows_of_prompts(measured.prompts[:FITTED])
    seen = measure_sensitivity(picture_maker(measured.pipe), exact, [units], rows, range(FITTED))
    even = with_steps(steps, evenly(steps, count))
    best = with_steps(steps, best_compute_steps(seen.changes[0], count, weights=seen.strides))

    def error(policy: Policy) -> float:
        return measured.error(policy, exact)

    climbed = polished(min(even, best, key=error), error, computing_step_shifts, EVALUATIONS)
    found = {
        "evenly": (even, 0),
        "dynamic programming": (best, 1),
        "polished": (climbed.policy, climbed.evaluations + 1),
    }
    return measured.compared(found, exact)


def noise_levels(measured: LatentErrors, steps: int) -> list[Compared]:
    """By the pipeline's own solver, and by each that takes a list: its own levels, the best skew, fitted ones."""

    def error(policy: Policy) -> float:
        return measured.error(policy, measured.full)

    found = {"own solver": (Policy(steps=steps), 0)}
    for solver in measured.space.solvers:
        fitted = fitted_noise_levels(solver, steps, error)
        if fitted is None:
            continue
        own = Policy(steps=steps, **solver.fields(0, steps))
        skewed = [Policy(steps=steps, **solver.fields(skew, steps)) for skew in range(-MOST_SKEW, MOST_SKEW + 1)]
        found |= {
            solver.name: (own, 0),
            f"{solver.name}, best skew": (min(skewed, key=error), len(skewed)),
            f"{solver.name}, fitted": (fitted.policy, fitted.evaluations),
        }
    return measured.compared(found, measured.full)


def table(title: str, found: Sequence[Compared]) -> Table:
    shown = Table(title=title)
    for column in ("how", "policy", "FLOPs", "error of latents", "apart from the first", "policies tried"):
        shown.add_column(column)
    for each in found:
        value, low, high = each.apart
        apart = "" if each is found[0] else f"{value:+.4f} ({low:+.4f}..{high:+.4f})"
        shown.add_row(
            each.how, each.policy[:60], f"{each.relative:.1%}", f"{each.error:.4f}", apart, str(each.evaluations)
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    args = parser.parse_args()
    console, measured = Console(highlight=False, width=180), LatentErrors(args.model)
    document: dict[str, Any] = {"model": args.model, "computing_steps": {}, "noise_levels": {}}
    torch.set_num_threads(1)
    with without_bars(measured.pipe):
        for budget in BUDGETS:
            found = computing_steps(measured, budget)
            console.print(table(f"{args.model}, computing steps, {budget:.0%}", found))
            document["computing_steps"][f"{budget:.0%}"] = [asdict(each) for each in found]
        for steps in STEPS:
            found = noise_levels(measured, steps)
            console.print(table(f"{args.model}, noise levels of {steps} steps", found))
            document["noise_levels"][str(steps)] = [asdict(each) for each in found]
    write_atomically(RESULTS / f"schedules-{args.model}.json", json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
