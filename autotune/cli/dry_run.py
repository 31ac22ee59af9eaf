"""``postdiff tune --dry-run``: what the search would try, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table

from autotune.cli.exit_codes import DONE
from autotune.cli.requests import TuneRequest
from autotune.core.faults import during
from autotune.pipelines.bars import without_bars
from autotune.workflows.floor_search import Ladder, ceiling
from autotune.workflows.forecast import (
    Forecast,
    Pace,
    first_pictures,
    forecast,
    measure_pace,
    shared_seconds,
    spared_seconds,
    total_seconds,
)
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup, prepare

# Columns where the output is no terminal.
_WIDTH = 100


def run_dry(request: TuneRequest) -> int:
    """Price what is known, time the full run, and say what that makes of the search; returns the exit code."""
    with during("while loading the model"):
        pipe = request.source.load(request.device, request.dtype)
    options = request.options
    searched: list[tuple[Setup, int, float]]
    with Progress(quiet=options.quiet) as progress, without_bars(pipe):
        with during("while preparing the search"):
            budgets = request.budgets
            if request.floors:
                budgets = (ceiling(*budgets[:1] or (None,), target=options.target is not None),)
            setups = prepare(pipe, budgets, options, on_progress=progress.profiling)
            searched = [(setup, options.trials, options.timeout) for setup in setups]
            if request.floors:
                ladder = Ladder.of(setups[0], request.folder.name, options, *request.budgets[:1] or (None,))
                searched = [(rung.setup, rung.trials, rung.timeout) for rung in ladder.dearest]
        with during("while timing the full run"):
            pace = measure_pace(setups[0], progress)
    workers = 1 + len(request.more_devices)
    forecasts = [
        forecast(setup, pace, trials=trials, timeout=timeout, workers=workers) for setup, trials, timeout in searched
    ]
    if request.floors:
        # There is one last round, of policies of different costs: as long as the dearest budget's.
        forecasts[:-1] = [replace(each, last_round_seconds=0.0, spared_seconds=0.0) for each in forecasts[:-1]]
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    for each in forecasts:
        console.print(_table(each))
    sentences = _sentences(setups[0], forecasts, pace, [timeout for *_, timeout in searched], workers)
    if request.floors:
        sentences.insert(0, "These budgets are searched at most for a floor; smaller ones, if these hold it.")
    console.print("\n".join(sentences), markup=False, soft_wrap=True)
    return DONE


def _table(budget: Forecast) -> Table:
    table = Table(title=f"Known settings at a budget of {budget.budget}", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("run")
    timed = any(run.latency_ms is not None for run in budget.runs)
    for name in ("steps", "FLOPs", *(("ms a call",) if timed else ())):
        table.add_column(name, justify="right")
    for run in budget.runs:
        time = "" if run.latency_ms is None else f"{run.latency_ms:,.1f}"
        table.add_row(run.name, str(run.steps), f"{run.relative:.1%}", *((time,) if timed else ()))
    return table


def _sentences(
    setup: Setup, budgets: Sequence[Forecast], pace: Pace, timeouts: Sequence[float], workers: int = 1
) -> list[str]:
    images, shared = len(setup.tuning.rows), shared_seconds(setup, pace)
    measured = f"a call with {pace.pictures} picture{'s' * (pace.pictures > 1)}"
    if pace.steps < setup.full.steps:
        measured += f" and {pace.steps} of the {setup.full.steps} steps"
    lines = [f"A picture of the full run takes about {duration(pace.seconds)} here ({measured} was timed)."]
    for each, timeout in zip(budgets, timeouts, strict=True):
        lines.append(f"Budget {each.budget}: {_candidates(each, images)} {_time_for_them(each, timeout, workers)}")
    search, last, exact = (
        sum(values)
        for values in zip(*((b.search_seconds, b.last_round_seconds, b.exact_seconds) for b in budgets), strict=True)
    )
    total, spared = total_seconds(budgets, shared), spared_seconds(setup, budgets, pace)
    sooner = ""
    if spared:
        sooner = f", or {duration(total - spared)} where {first_pictures(setup)} pictures decide the last round"
    lines.append(
        f"The run would take about {duration(total)}{sooner}: {_full_run(shared)}{duration(search)} for candidates,"
        f" {duration(last)} for the last round{_exact(budgets, exact)}."
    )
    return [*lines, "This was a dry run: no study was made and nothing written."]


def _full_run(seconds: float) -> str:
    """What the full run's pictures take, unless they are known."""
    return f"{duration(seconds)} for pictures of the full run, " if seconds else ""


def _exact(budgets: Sequence[Forecast], seconds: float) -> str:
    """What exact runs take, where candidates are compared with any."""
    if not seconds:
        return ""
    share = max(budget.exact_share for budget in budgets)
    most = max(budget.intents for budget in budgets)
    return (
        f", and {duration(seconds)} ({share:.0%}) for exact runs with their guidance, {most} of at"
        f" most {budgets[0].exact_pictures} pictures"
    )


def _candidates(budget: Forecast, images: int) -> str:
    whole = f"all {images} pictures of a candidate take about {duration(budget.candidate_seconds)}"
    if budget.usual_seconds == budget.candidate_seconds:
        return f"{whole}."
    return f"{whole}, but most are stopped early: one takes {duration(budget.usual_seconds)} on average."


def _time_for_them(budget: Forecast, timeout: float, workers: int) -> str:
    known, allowed = len(budget.runs) - 1, f"the {duration(timeout)} of --timeout"
    if budget.fitting < known:
        needed = -(-known // workers) * budget.usual_seconds
        return f"The {known} known settings, which always run, take {duration(needed)}, more than {allowed}."
    fit = f"About {budget.fitting} of {budget.trials}" if budget.fitting < budget.trials else f"All {budget.trials}"
    return f"{fit} candidates fit into {allowed}, the {known} known settings first."


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it.

    Example:
        >>> duration(0.034), duration(7.04), duration(260), duration(9000)
        ('34 ms', '7.0 s', '4.3 minutes', '2.5 hours')
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"
