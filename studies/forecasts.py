"""Do fitted weights forecast better than polynomials? L2P (arXiv 2604.26365) on a shipped model, at equal schedules.

``python -m studies.forecasts MODEL`` takes budgets of 25, 40 and 60 % of the full run's FLOPs. At each there is one
rule over the whole stack of blocks, with as many evenly spaced computing steps, of the full run's number of steps, as
the budget pays for. What the other steps take differs: the last output (reuse), the polynomial through the last ones
(Taylor, orders 1 and 2), and two or three of them with the weights that ``autotune.fit_forecasts`` finds, and chooses
between, on 32 prompts. ``--residuals`` adds the same of a transformer's residual.

The error is the squared distance of the final latents from those of the full run from the same noise, relative to
their size: the mean over 64 prompts that nothing was fitted to. They come after the first 32, which have decided on
how is fitted. Differences are paired by prompt, against the better of the two Taylor orders, with 95 % intervals by
Student's t; so are ratios, as geometric means. The table also goes to ``studies/results/forecasts-MODEL.json``.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy import stats
from torch import Tensor

import autotune
from autotune.core.records import write_atomically
from autotune.cost import Pricer
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.pipelines.bars import without_bars
from autotune.policy import CacheRule, Policy, lowest_version
from autotune.runtime import full_policy
from studies.latents import errors, latents
from studies.search.recipes import evenly
from studies.shipped import BATCH, search_prompts

RESULTS = Path(__file__).with_name("results")
BUDGETS = (0.25, 0.4, 0.6)
FITTED_ON, LOOKED_AT, JUDGED_ON = 32, 32, 64
"""Prompts: the first of those to tune on; the first of those to judge on, which are left out; and the next ones."""
_SEED = 6 * 10**6

# The stack's end, and the range whose residual the stack is. No residual crosses a U-Net, whose widths differ.
FORECAST_OF: Mapping[str, str] = {"emoji-unet": "up_blocks.2", "emoji-dit": "transformer_blocks.7"}
RESIDUAL_OF: Mapping[str, str] = {"emoji-dit": "transformer_blocks.0-7"}
TAYLOR = ("Taylor, order 1", "Taylor, order 2")


@dataclass(frozen=True)
class Contender:
    """One way to fill in the skipped steps.

    Attributes:
        error: Mean relative squared error of the final latents.
        behind: That minus the better Taylor order's, with the 95 % interval, paired.
        ratio: Geometric mean over prompts of the error divided by the better Taylor order's, with the 95 % interval: a
            prompt whose picture becomes another one counts as one prompt and does not decide the mean.
        better_on: Of how many prompts the error is lower.
    """

    name: str
    policy: str
    relative: float
    error: float
    behind: tuple[float, float, float]
    ratio: tuple[float, float, float]
    better_on: int


def schedule(pricer: Pricer, model: str, steps: int, budget: float) -> tuple[int, ...]:
    """The most evenly spaced computing steps that a budget pays for."""
    for count in reversed(range(1, steps)):
        found = evenly(steps, count)
        if pricer.price(stack_policy(FORECAST_OF[model], steps, found)).relative <= budget:
            return found
    raise ValueError(f"{budget:.0%} pays for no step")


def contenders(
    pipe: Any, model: str, steps: int, compute: Sequence[int], prompts: Sequence[str], *, residuals: bool = False
) -> dict[str, Policy]:
    """Policies of one schedule by name."""
    outputs = FORECAST_OF[model]
    found = {"reuse": stack_policy(outputs, steps, compute)}
    found |= {
        name: stack_policy(outputs, steps, compute, mode="forecast", order=order)
        for order, name in enumerate(TAYLOR, 1)
    }
    fitted = autotune.fit_forecasts(pipe, found[TAYLOR[0]], prompts, batch_size=BATCH)
    found[f"fitted, {_terms(fitted)} weights"] = fitted
    if residuals and model in RESIDUAL_OF:
        line = stack_policy(RESIDUAL_OF[model], steps, compute, mode="residual", order=1)
        found["residual, order 1"] = line
        fitted = autotune.fit_forecasts(pipe, line, prompts, batch_size=BATCH)
        found[f"residual, fitted, {_terms(fitted)} weights"] = fitted
    return found


def difference(own: Tensor, other: Tensor) -> tuple[float, float, float]:
    """The mean of paired differences with its 95 % interval."""
    value, low, high = _interval(own - other)
    return round(value, 6), round(low, 6), round(high, 6)


def ratio(own: Tensor, other: Tensor) -> tuple[float, float, float]:
    """The geometric mean of paired ratios with its 95 % interval."""
    value, low, high = _interval(own.log() - other.log())
    return round(math.exp(value), 3), round(math.exp(low), 3), round(math.exp(high), 3)


def _interval(paired: Tensor) -> tuple[float, float, float]:
    mean = float(paired.mean())
    half = float(stats.t.ppf(0.975, len(paired) - 1) * stats.sem(paired.numpy()))
    return mean, mean - half, mean + half


def study(model: str, budgets: Sequence[float] = BUDGETS, *, residuals: bool = False) -> list[dict[str, Any]]:
    """For each budget its schedule and contenders."""
    pipe = demo_pipeline(model)
    full = full_policy(pipe)
    fit_on, judge_on = search_prompts(model)
    judge_on, pricer = judge_on[LOOKED_AT : LOOKED_AT + JUDGED_ON], Pricer(pipe)
    cells = []
    with without_bars(pipe):
        exact = latents(pipe, full, judge_on, first_seed=_SEED)
        for budget in budgets:
            compute = schedule(pricer, model, full.steps, budget)
            policies = contenders(pipe, model, full.steps, compute, fit_on[:FITTED_ON], residuals=residuals)
            seen = {
                name: errors(latents(pipe, policy, judge_on, first_seed=_SEED), exact)
                for name, policy in track(policies.items(), f"{model}, {budget:.0%}", transient=True)
            }
            best = min(TAYLOR, key=lambda name: float(seen[name].mean()))
            rows = [
                Contender(
                    name,
                    policy.id,
                    round(pricer.price(policy).relative, 4),
                    round(float(seen[name].mean()), 6),
                    difference(seen[name], seen[best]),
                    ratio(seen[name], seen[best]),
                    int((seen[name] < seen[best]).sum()),
                )
                for name, policy in policies.items()
            ]
            cells.append(
                {"budget": budget, "compute_steps": compute, "best_taylor": best, "contenders": list(map(asdict, rows))}
            )
    return cells


def table(model: str, cell: Mapping[str, Any]) -> Table:
    shown = Table(
        title=f"{model}, {cell['budget']:.0%}: computes in steps {', '.join(map(str, cell['compute_steps']))}"
    )
    for column in ("skipped steps take", "policy", "FLOPs", "latent error", f"behind {cell['best_taylor']}", "ratio"):
        shown.add_column(column)
    for each in cell["contenders"]:
        value, low, high = each["behind"]
        behind, times = f"{value:+.5f} ({low:+.5f}..{high:+.5f})", "{:.2f} ({:.2f}..{:.2f})".format(*each["ratio"])
        if each["name"] == cell["best_taylor"]:
            behind = times = ""
        shown.add_row(each["name"], each["policy"], f"{each['relative']:.1%}", f"{each['error']:.5f}", behind, times)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--residuals", action="store_true", help="of a transformer, forecast residuals too")
    args = parser.parse_args()
    cells = study(args.model, residuals=args.residuals)
    console = Console(highlight=False, width=180)
    for cell in cells:
        console.print(table(args.model, cell))
    what = {"model": args.model, "fitted_on": FITTED_ON, "judged_on": JUDGED_ON, "cells": cells}
    write_atomically(RESULTS / f"forecasts-{args.model}.json", json.dumps(what, indent=1) + "\n")


def _terms(fitted: Policy) -> int:
    return max(len(each) for rule in fitted.cache for each in rule.weights or ())


def stack_policy(unit: str, steps: int, compute: Sequence[int], **how: Any) -> Policy:
    """One rule over ``unit``, which computes at the given steps; ``how`` are its further fields."""
    rule = CacheRule(units=(unit,), compute_steps=tuple(compute), **how)
    return Policy(version=lowest_version(None, (rule,)), steps=steps, cache=(rule,))


if __name__ == "__main__":
    main()
