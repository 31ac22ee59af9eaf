"""How well a hardware profile predicts the time of pipeline calls.

``python -m studies.latency_accuracy`` profiles both shipped models on this machine and measures policies that
took no part in the profile, between 25 % and 100 % of the full run's FLOPs, in turn and round by round. Profiling
and measuring alternate too, for machines that others use as well change their speed by more than the error that is
looked for. It prints predicted and measured milliseconds of each policy (medians over the blocks and over all
rounds), and the median and 90th percentile of the relative error.
Targets: at most 5 % and 10 % on a CPU at batch 8, 3 % and 6 % on a GPU (``--gpu``: SD1.5-, SDXL-, PixArt-
and FLUX-sized random weights in bfloat16; ``--scales`` for some scales of low resolution only, of which large
latents have up to 48).
"""

from __future__ import annotations

import argparse
import functools
import random
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from autotune.cost import Pricer, Profile, measure_profile
from autotune.cost.example import example_call
from autotune.cost.profile.subject import Call
from autotune.cost.profile.timers import Clock
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.policy import Policy
from autotune.runtime import applied
from studies.full_size import MODELS, workloads
from studies.sampling import random_policies

CHEAPEST = 0.25
# In every block.
ROUNDS = 3


@dataclass(frozen=True)
class Subject:
    """A pipeline, the steps of its full run and the arguments of its calls."""

    name: str
    pipe: Any
    steps: int
    batch: int
    call: Call
    text_tokens: int | None = None


@dataclass(frozen=True)
class Row:
    """One policy: share of the FLOPs, milliseconds predicted and measured (median of the rounds)."""

    policy: str
    share: float
    predicted: float
    measured: float

    @property
    def error(self) -> float:
        """Relative to what was measured."""
        return self.predicted / self.measured - 1


def study(
    subject: Subject, count: int, blocks: int, scales: Sequence[float] | None, progress: Progress
) -> tuple[Profile, list[Row]]:
    """The last profile, and the full run and ``count`` random policies against all of them."""
    pricer = Pricer(subject.pipe, full_steps=subject.steps, text_tokens=subject.text_tokens)
    choices = range(max(2, subject.steps // 3), subject.steps + 1)
    wanted = None if scales is None else [Fraction(scale) for scale in scales]
    chosen = islice(random_policies(pricer, choices, low=CHEAPEST, scales=wanted), count)
    policies = [Policy(steps=subject.steps), *chosen]
    predicted: list[list[float]] = [[] for _ in policies]
    measured: list[list[float]] = [[] for _ in policies]
    for block in range(blocks):
        profile = profiled(subject, scales, f"profile {block + 1} of {blocks}", progress)
        timed = pricer.on(profile)
        for index, policy in enumerate(policies):
            milliseconds = timed.price(policy, subject.batch).latency_ms
            assert milliseconds is not None
            predicted[index].append(milliseconds)
        for index, times in enumerate(measure(subject, policies, ROUNDS, progress)):
            measured[index] += times
    rows = [
        Row(policy.id, pricer.price(policy).relative, statistics.median(guesses), statistics.median(times))
        for policy, guesses, times in zip(policies, predicted, measured, strict=True)
    ]
    return profile, rows


def profiled(subject: Subject, scales: Sequence[float] | None, what: str, progress: Progress) -> Profile:
    task = progress.add_task(f"{subject.name}, {what}")
    return measure_profile(
        subject.pipe,
        scales=scales,
        batches=[subject.batch],
        call=subject.call,
        text_tokens=subject.text_tokens,
        on_progress=lambda what, done, total: progress.update(task, completed=done, total=total),
    )


def measure(subject: Subject, policies: list[Policy], rounds: int, progress: Progress) -> list[list[float]]:
    """Milliseconds of calls under each policy, in rounds in each of which all take their turn."""
    clock = Clock(torch.device(subject.pipe.device))
    taken: list[list[float]] = [[] for _ in policies]
    task = progress.add_task(f"measuring {subject.name}", total=rounds * len(policies))
    order = random.Random(0)
    for _ in range(rounds):
        for index in order.sample(range(len(policies)), len(policies)):
            arguments = {**subject.call(subject.batch), "generator": torch.Generator().manual_seed(0)}
            with applied(subject.pipe, policies[index]):
                taken[index].append(clock.milliseconds(functools.partial(subject.pipe, **arguments)))
            progress.advance(task)
    return taken


def report(console: Console, subject: Subject, profile: Profile, rows: list[Row]) -> None:
    table = Table("policy", "FLOPs", "predicted", "measured", "error", title=f"{subject.name}, batch {subject.batch}")
    for row in rows:
        times = f"{row.predicted:.1f} ms", f"{row.measured:.1f} ms"
        table.add_row(row.policy[:60], f"{row.share:.1%}", *times, f"{row.error:+.1%}")
    console.print(table)
    full, *others = rows
    median, high = (5, 10) if profile.device.kind == "cpu" else (3, 6)
    console.print(
        f"{subject.name} on {profile.device.title}: error of {len(others)} predictions"
        f" {_summary([row.error for row in others])} (target: at most {median} % and {high} %); as shares of the full"
        f" run's time {_summary([(1 + row.error) / (1 + full.error) - 1 for row in others])}"
    )


def _summary(errors: list[float]) -> str:
    sizes = [abs(error) for error in errors]
    return f"{statistics.median(sizes):.1%} in the median, 90th percentile {np.quantile(sizes, 0.9):.1%}"


def shipped(batch: int) -> Iterator[Subject]:
    for name in DEMO_NAMES:
        pipe = demo_pipeline(name)
        pipe.set_progress_bar_config(disable=True)
        yield Subject(name, pipe, demo_assets(name).full_steps, batch, functools.partial(example_call, pipe))


def full_size(names: Sequence[str]) -> Iterator[Subject]:
    for workload, _ in workloads(names):
        call = functools.partial(_the_one_call, workload.arguments | {"output_type": "latent"})
        yield Subject(workload.name, workload.pipe, workload.steps, workload.batch, call, workload.text_tokens)


def _the_one_call(arguments: Mapping[str, Any], batch: int) -> Mapping[str, Any]:
    """A workload's prompts are encoded for one batch size."""
    return arguments


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--policies", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=3, help="of a profile and three measurements of every policy")
    parser.add_argument("--profiles", type=Path, help="folder to keep the profiles in")
    parser.add_argument("--gpu", action="store_true", help="full-size random weights on the GPU")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS], help="with --gpu, which of them")
    parser.add_argument("--scales", nargs="+", type=float, help="of low resolution; by default all that a model takes")
    args = parser.parse_args()
    console = Console(highlight=False)
    if args.gpu and not torch.cuda.is_available():
        sys.exit("--gpu needs a CUDA device and torch finds none: leave it out to measure the shipped models")
    for subject in full_size(args.models) if args.gpu else shipped(args.batch):
        with Progress(console=Console(stderr=True), transient=True) as progress:
            profile, rows = study(subject, args.policies, args.blocks, args.scales, progress)
        if args.profiles is not None:
            profile.save(args.profiles / f"{subject.name.replace(', ', '-').replace(' ', '-')}.json")
        report(console, subject, profile, rows)


if __name__ == "__main__":
    main()
