"""How near to the full run does guidance stay that computes its unconditional branch every second or third step?

``python -m studies.guidance_rate MODEL`` makes the full run of 32 held-out prompts and, at 40 and 60 % of its FLOPs:

- fewer steps;
- guidance throughout, both branches computed in every second or third step, their last difference reused between;
- guidance in an interval of as many steps, of as many steps in all: the first ones, or those in the middle.

All begin with the same noise. The error of a policy is the squared distance of its final latents to the full run's
over the squared norm of these, averaged over prompts; intervals hold at 95 % (percentile bootstrap over prompts). An
interval of guidance changes pictures on purpose: its error says how far it goes from the full run, not how bad it is.

Results go to ``studies/results/guidance_rate-MODEL.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from autotune.core.records import write_atomically
from autotune.cost import Pricer
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.pipelines.bars import without_bars
from autotune.policy import Guidance, Policy
from autotune.runtime.models import default_steps
from studies.latents import errors, latents, mean
from studies.search.recipes import evenly
from studies.shipped import search_prompts

RESULTS = Path(__file__).with_name("results")
BUDGETS = (0.4, 0.6)
EVERY = (2, 3)
PROMPTS = 32


@dataclass(frozen=True)
class Row:
    """One policy.

    Attributes:
        kind: What it does about guidance.
        relative: FLOPs as a share of the full run's.
        error: With its interval.
        behind: Error more than that of fewer steps, in pairs, with its interval.
    """

    budget: str
    kind: str
    policy: str
    relative: float
    error: tuple[float, float, float]
    behind: tuple[float, float, float]


def policies(full_steps: int, share: float) -> Iterator[tuple[str, Policy]]:
    """What is compared at a share of the full run's FLOPs, fewer steps first."""
    branches = round(2 * full_steps * share)
    yield "fewer steps", Policy(steps=branches // 2)
    for every in EVERY:
        steps = min(range(branches // 2, branches), key=lambda steps: abs((branches - steps) / steps - 1 / every))
        both = branches - steps
        middle = (steps - both) // 2
        yield f"every {every} steps", Policy(version=3, steps=steps, guidance=_guided(0, steps, evenly(steps, both)))
        yield f"first steps, as for every {every}", Policy(steps=steps, guidance=_guided(0, both))
        yield f"middle steps, as for every {every}", Policy(steps=steps, guidance=_guided(middle, middle + both))


def measure(model: str) -> list[Row]:
    pipe = demo_pipeline(model)
    prompts = search_prompts(model)[1][:PROMPTS]
    steps, pricer = default_steps(pipe), Pricer(pipe)
    rows = []
    with without_bars(pipe):
        full = latents(pipe, Policy(steps=steps), prompts)
        for share in BUDGETS:
            fewer: Tensor | None = None
            for kind, policy in policies(steps, share):
                found = errors(latents(pipe, policy, prompts), full)
                fewer = found if fewer is None else fewer
                relative = round(pricer.price(policy).relative, 4)
                rows.append(Row(f"{share:.0%}", kind, policy.id, relative, mean(found), mean(found - fewer)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", choices=DEMO_NAMES)
    model = parser.parse_args().model
    torch.set_num_threads(1)
    rows = measure(model)
    document = {"model": model, "prompts": PROMPTS, "rows": [asdict(row) for row in rows]}
    write_atomically(RESULTS / f"guidance_rate-{model}.json", json.dumps(document, indent=1) + "\n")
    Console().print(_table(model, rows))


def _guided(start: int, stop: int, compute_steps: tuple[int, ...] | None = None) -> Guidance:
    return Guidance(start_step=start, stop_step=stop, compute_steps=compute_steps)


def _table(model: str, rows: list[Row]) -> Table:
    table = Table(title=f"{model}: squared error of the latents to the full run's, {PROMPTS} prompts")
    for heading in ("budget", "guidance", "policy", "FLOPs", "error", "more than fewer steps"):
        table.add_column(heading)
    for row in rows:
        error, behind = (f"{value:.4f} ({low:.4f} to {high:.4f})" for value, low, high in (row.error, row.behind))
        table.add_row(row.budget, row.kind, row.policy, f"{row.relative:.1%}", error, behind)
    return table


if __name__ == "__main__":
    main()
