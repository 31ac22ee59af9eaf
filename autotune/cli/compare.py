"""``postdiff compare``: policies and the full run side by side, in a table, sentences and pictures."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from autotune.cli.exit_codes import DONE
from autotune.cli.faults import one_sentence
from autotune.cli.options import CompareOptions
from autotune.cli.tune import given_columns
from autotune.core.faults import during
from autotune.core.naming import TUNER_LOG
from autotune.models.shipped import demo_assets
from autotune.report import Column, Side, comparison_tables, save_grid

if TYPE_CHECKING:
    from autotune.results.comparison import ComparedRun, Comparison

# Columns of the tables where the output is no terminal.
_WIDTH = 100


def run_compare(options: CompareOptions) -> int:
    """Compare, save the grid of pictures and report; returns the exit code.

    Raises:
        Interrupted: Ctrl-C while comparing.
    """
    with one_sentence("compare", options.out / TUNER_LOG, resumes=True):
        return _run(options)


def _run(options: CompareOptions) -> int:
    from autotune.quality.lpips import Lpips
    from autotune.workflows.compare import compare

    # Its weights may be missing, which is to be said before a large model is read; what says that they are being
    # fetched must not get into the document.
    with redirect_stdout(sys.stderr):
        lpips = None if options.lpips is None else Lpips(options.lpips)
    with during("while loading the model"):
        pipe = options.source.load(options.device, options.dtype)
    comparison = compare(
        pipe,
        options.policies,
        **_examples(options),
        images=options.images,
        objective=options.judges.objective,
        weight_fd=options.judges.weight_fd,
        weight_clip=options.judges.weight_clip,
        lpips=lpips,
        height=options.height,
        width=options.width,
        guidance_scale=options.guidance_scale,
        steps=options.steps,
        batch_size=options.batch_size,
        seed=options.seed,
        run_dir=options.out,
        quiet=options.quiet,
    )
    grid = comparison.run_dir / "comparison.png"
    with during("in the comparison picture"):
        _save_grid(comparison, grid)
    if options.as_json:
        print(json.dumps(comparison.to_dict()))
    elif not options.quiet:
        _show(comparison, grid)
    return DONE


def _examples(options: CompareOptions) -> dict[str, Any]:
    """Inputs, reference and judges: a shipped model brings its own, which options replace one by one."""
    from autotune.evaluation.judges import shipped_judges

    given = options.judges
    chosen: dict[str, Any] = {"prompts": options.prompts, "inputs": options.inputs, "network": given.features}
    if not options.source.shipped:
        return chosen | {"scorer": given.scorer, "reference": options.reference}
    if options.prompts is None and options.inputs is None:
        chosen["prompts"] = demo_assets(options.source.name).held_out_prompts
    scorer, reference = shipped_judges(options.source.name, given.scorer, given.features, options.reference)
    return chosen | {"scorer": scorer, "reference": reference}


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
        f"All numbers are in {comparison.run_dir / 'compare.json'}",
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
