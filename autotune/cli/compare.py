"""``postdiff compare``: policies and the full run side by side, in a table, sentences and pictures."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from autotune.cli.exit_codes import DONE
from autotune.cli.faults import one_sentence
from autotune.cli.requests import CompareRequest
from autotune.cli.tune import given_columns
from autotune.core.faults import during
from autotune.core.naming import TUNER_LOG
from autotune.evaluation.grid import Column, save_grid
from autotune.report import Side, comparison_tables
from autotune.results.comparison import FILE

if TYPE_CHECKING:
    from autotune.results.comparison import ComparedRun, Comparison

# Columns of the tables where the output is no terminal.
_WIDTH = 100


def run_compare(request: CompareRequest) -> int:
    """Compare, save the grid of pictures and report; returns the exit code.

    Raises:
        Interrupted: Ctrl-C while comparing.
    """
    with one_sentence("compare", request.folder / TUNER_LOG, resumes=True):
        return _run(request)


def _run(request: CompareRequest) -> int:
    from autotune.quality.lpips import Lpips
    from autotune.workflows.compare import compare_policies

    options = request.options
    # Its weights may be missing, which is to be said before a large model is read; what says that they are being
    # fetched must not get into the document.
    with redirect_stdout(sys.stderr):
        lpips = Lpips(options.lpips) if isinstance(options.lpips, str) else options.lpips
    with during("while loading the model"):
        pipe = request.source.load(request.device, request.dtype)
    comparison = compare_policies(pipe, request.policies, replace(options, lpips=lpips))
    grid = comparison.run_dir / "comparison.png"
    with during("in the comparison picture"):
        _save_grid(comparison, grid)
    if request.as_json:
        print(json.dumps(comparison.to_dict()))
    elif not options.quiet:
        _show(comparison, grid)
    return DONE


def _save_grid(comparison: Comparison, path: Path) -> None:
    runs = (comparison.full, *comparison.runs)
    columns = given_columns(comparison.preview_inputs, len(comparison.preview_prompts)) + [
        Column(run.name, pictures.numpy(), f"{run.policy.steps} steps, {run.cost.relative:.0%} FLOPs")
        for run, pictures in zip(runs, comparison.previews, strict=True)
    ]
    save_grid(columns, comparison.preview_prompts, path)


def _show(comparison: Comparison, grid: Path) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    sides = [_side(run) for run in (comparison.full, *comparison.runs)]
    conditions = comparison.conditions
    for part in comparison_tables(
        sides, prompts=conditions.prompts, images=conditions.images, width=console.width, noun=conditions.noun
    ):
        console.print(part)
    lines = [
        *comparison.sentences,
        f"Compare the pictures in {grid}",
        f"All numbers are in {comparison.run_dir / FILE}",
        *(f"Note: {note}" for note in comparison.notes),
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _side(run: ComparedRun) -> Side:
    return Side(
        name=run.name,
        steps=run.policy.steps,
        flops_share=run.cost.relative,
        quality=run.quality,
        psnr=run.psnr,
        ssim=run.ssim,
        identical=run.identical,
        lpips=run.lpips,
    )
