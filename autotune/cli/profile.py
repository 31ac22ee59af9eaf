"""``postdiff profile``: measure a model on this machine, and say what was found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from autotune import cost
from autotune.cli.models import DType, ModelSource
from autotune.core.faults import during
from autotune.core.naming import CompileMode
from autotune.cost.profile import BatchTimes, Profile

# Columns of the table where the output is no terminal.
_WIDTH = 100


@dataclass(frozen=True)
class ProfileOptions:
    """The checked options; None leaves a value to the model or to what is found."""

    source: ModelSource
    height: int | None
    width: int | None
    batches: Sequence[int]
    scales: Sequence[float] | None
    guided: bool | None
    compile_mode: CompileMode
    config_only: bool
    device: str
    dtype: DType
    out: Path | None
    quiet: bool


def run_profile(options: ProfileOptions) -> int:
    """Measure, save and summarise; returns the exit code."""
    with during("while loading the model"):
        pipe = options.source.load(options.device, options.dtype, config_only=options.config_only)
    with during("while measuring"):
        profile = _measure(pipe, options)
    path = options.out or Path(default_name(options.source.name, profile))
    with during(f"while writing {path}"):
        profile.save(path)
    if not options.quiet:
        show(profile, path)
    return 0


def default_name(model: str, profile: Profile) -> str:
    """A file name for a profile, such as ``emoji-unet-NVIDIA-H200-bfloat16.json``."""
    parts = (Path(model).name, profile.device.name, profile.dtype)
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(parts)).strip("-") + ".json"


def _measure(pipe: Any, options: ProfileOptions) -> Profile:
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("profiling, {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=options.quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        return cost.measure_profile(
            pipe,
            height=options.height,
            width=options.width,
            batches=options.batches,
            scales=options.scales or _asked_scales(pipe, options),
            guided=options.guided,
            compile_mode=options.compile_mode,
            on_progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
        )


def _asked_scales(pipe: Any, options: ProfileOptions) -> Sequence[float] | None:
    """Those that a search over the whole space asks for; None where it has no choice of them."""
    # They load torch, as no wrong option should.
    from search_spaces import space_for
    from search_spaces.denoiser import DenoiserSpace

    space = space_for(pipe, height=options.height, width=options.width)
    return [float(scale) for scale in space.asked_scales] if isinstance(space, DenoiserSpace) else None


def show(profile: Profile, path: Path) -> None:
    """Print what a profile says in short."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    model = profile.model
    console.print(
        f"{model.pipeline} {model.height} x {model.width} on {profile.device.title}, {profile.dtype}", markup=False
    )
    table = Table("batch", "latents", "denoiser call", "text encoder", "decoder", "a step besides", "fits calls within")
    for column in table.columns[2:]:
        column.justify = "right"
    for times in profile.batches:
        largest = max(times.calls, key=lambda call: (call.height * call.width, call.branches))
        table.add_row(
            str(times.batch),
            f"{largest.height} x {largest.width}",
            f"{largest.forward_ms * times.corrections.denoiser:.4g} ms",
            f"{times.text_encoder_ms:.4g} ms",
            f"{times.decoder_ms:.4g} ms",
            f"{times.corrections.step_ms:.3g} ms",
            f"{_worst(times):.1%}",
        )
    console.print(table)
    console.print(f"Saved to {path}; use it with --target {path}", markup=False, soft_wrap=True)


def _worst(times: BatchTimes) -> float:
    """The largest relative error over the calibration runs."""
    return max((abs(run.predicted_ms / run.measured_ms - 1) for run in times.calibration), default=0.0)
