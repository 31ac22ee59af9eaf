"""``postdiff tune``: search, then say what was found in a table and a sentence."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console

from autotune.cli.exit_codes import DONE, NOTHING_FOUND
from autotune.cli.faults import one_sentence
from autotune.cli.requests import TuneRequest
from autotune.cli.worker_processes import DeviceWorkers
from autotune.core.faults import during
from autotune.core.interrupts import Interrupted
from autotune.core.naming import FEWER_STEPS, TUNER_LOG
from autotune.evaluation.grid import Column, save_grid
from autotune.report import Row, ended_early, less_is_enough, results_table, verdict
from autotune.report.dashboard import publish
from autotune.report.page import FILE, write_report
from autotune.report.run import read_run
from autotune.report.tiers import tier_lines, tiers_table
from autotune.report.tiers_page import FILE as TIERS_PAGE
from autotune.report.tiers_page import write_tiers_page
from autotune.report.tradeoff import tradeoff_table
from autotune.results.tiers import POLICIES

if TYPE_CHECKING:
    from torch import Tensor

    from autotune.policy import PolicySet
    from autotune.results.tradeoff import Tradeoff
    from autotune.workflows.tune import TuneResult

# Columns of the table where the output is no terminal.
_WIDTH = 100
# Prompts in the grid of pictures.
_COMPARED = 8


def run_tune(request: TuneRequest) -> int:
    """Search, export and report; returns the exit code, with several budgets of the one that went least well.

    Raises:
        Interrupted: Ctrl-C while searching.
    """
    with one_sentence("tune", request.folder / TUNER_LOG, resumes=True):
        return _run(request)


def _run(request: TuneRequest) -> int:
    from autotune.workflows.tune import tune_budgets
    from autotune.workflows.tune_floors import tune_floors

    with during("while loading the model"):
        pipe = request.source.load(request.device, request.dtype)
    results: Sequence[TuneResult]
    if request.floors:
        (budget,) = request.budgets or (None,)
        results = tune_floors(pipe, request.floors, budget, request.options, _helpers(request))
    else:
        results = tune_budgets(pipe, request.budgets, request.options, _helpers(request))
    try:
        policies = None
        if request.tiers:
            from autotune.workflows.tiers import export_tiers

            with during(f"in the export of {POLICIES}"):
                policies = export_tiers(request.tiers, results, Path(request.source.name).name, FILE)
        code = _show_all(request, results)
        if policies is not None:
            _show_tiers(request, policies)
        return code
    except KeyboardInterrupt:
        files = ", ".join(str(result.policy_file) for result in results)
        said = f"interrupted while the result was shown; {files} is exported, repeat the same command for the report"
        raise Interrupted(request.folder, said) from None


def _helpers(request: TuneRequest) -> DeviceWorkers | None:
    """Workers on the other devices that were asked for."""
    if not request.more_devices:
        return None
    if request.device != "cpu":
        return DeviceWorkers(request.more_devices)
    # So many processes on one CPU, each with a thread for every core, wait for one another.
    share = max(torch.get_num_threads() // (1 + len(request.more_devices)), 1)
    torch.set_num_threads(share)
    return DeviceWorkers(request.more_devices, threads=share)


def _show_all(request: TuneRequest, results: Sequence[TuneResult]) -> int:
    quiet = request.options.quiet
    several = len(results) > 1
    for result, heading in zip(results, request.headings, strict=True):
        place = result.policy_folder
        rows = _rows(result)
        with during("in the comparison picture"):
            _save_comparison(result, rows, place / "comparison.png")
        with during("in the report"):
            run = read_run(place, study=result.study)
            write_report(run, place / FILE)
        with during("while publishing to the dashboard"):
            publish(run)
        if not quiet:
            _show(result, rows, place, heading if several else None)
    if not quiet:
        if results[0].tradeoff is not None:
            show_tradeoff(results[0].tradeoff)
        print(f"See every trial: postdiff dashboard {shlex.quote(str(request.folder))}")
    return DONE if all(result.finalists.succeeded for result in results) else NOTHING_FOUND


def _show_tiers(request: TuneRequest, policies: PolicySet) -> None:
    """The page of the tiers and, unless nothing is to be said, a table of them."""
    folder = request.folder
    with during("in the page of the tiers"):
        write_tiers_page(folder, folder / TIERS_PAGE)
    if request.options.quiet:
        return
    console = _console()
    console.print(tiers_table(tier_lines(policies)))
    console.print(
        f"Exported the tiers to {folder / POLICIES}\nCompare their pictures: {folder / TIERS_PAGE}",
        markup=False,
        soft_wrap=True,
    )


def _rows(result: TuneResult) -> list[Row]:
    """The full run, fewer steps and, where one succeeded, the best candidate."""
    finalists = result.finalists
    floor = finalists.floor
    best = "policy" if floor is None or finalists.winner in finalists.candidates else "not certified"
    names = (finalists.full.name, finalists.fewer_steps.name, best)
    return [
        Row(
            name=name,
            steps=run.policy.steps,
            flops_share=run.cost.relative,
            time_share=run.time.relative if run.time else None,
            quality=run.quality,
            second_opinion=run.second_opinion,
        )
        for name, run in zip(names, finalists.headline_runs, strict=False)
    ]


def _save_comparison(result: TuneResult, rows: list[Row], path: Path) -> None:
    prompts = result.preview_prompts[:_COMPARED]
    columns = given_columns(result.preview_inputs, len(prompts)) + [
        Column(row.name, pictures[: len(prompts)].numpy(), f"{row.steps} steps, {row.flops_share:.0%} FLOPs")
        for row, pictures in zip(rows, result.previews, strict=True)
    ]
    save_grid(columns, prompts, path)


def given_columns(pictures: Mapping[str, Tensor], count: int) -> list[Column]:
    """A column of the first pictures that the pipeline was given, for each of its arguments that takes some."""
    return [
        Column(name.replace("_", " "), given[:count].numpy(), "what the pipeline was given")
        for name, given in pictures.items()
    ]


def show_tradeoff(tradeoff: Tradeoff) -> None:
    """Print whether fewer or cheaper steps serve the model better, as a table and in sentences."""
    console = _console()
    console.print(tradeoff_table(tradeoff))
    console.print("\n".join(tradeoff.verdict), markup=False, soft_wrap=True)


def _console() -> Console:
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    return console


def _show(result: TuneResult, rows: list[Row], place: Path, heading: str | None) -> None:
    finalists = result.finalists
    console = _console()
    if heading is not None:
        console.print(heading)
    second = finalists.second_opinion
    console.print(
        results_table(
            rows,
            prompts=finalists.prompts,
            images=finalists.images,
            noun=result.noun,
            second_opinion=None if second is None else second.judge,
        )
    )
    exported = result.policy.id
    if finalists.winner.trial is None or finalists.winner.name == FEWER_STEPS:
        exported = f"{finalists.winner.name}, {exported},"
    lines = [
        verdict(finalists, result.noun),
        *filter(None, [ended_early(finalists), less_is_enough(result.policy)]),
        f"Exported {exported} to {result.policy_file}",
        _spent(result),
        f"Compare the pictures in {place / 'comparison.png'}",
        f"Read the report: {place / FILE}",
        *(f"Note: {note}" for note in result.notes),
    ]
    console.print("\n".join(lines), markup=False, soft_wrap=True)


def _spent(result: TuneResult) -> str:
    """How many pictures the search made, and what that took compared with all."""
    spent = result.spending
    return (
        f"The search made {spent.pictures:,} pictures of {spent.candidates} candidates, with {spent.share:.0%} of the"
        " FLOPs that all pictures of all of them take"
        + (f", and {spent.exact_share:.0%} of all FLOPs on exact runs to compare with" if spent.exact else "")
    )
