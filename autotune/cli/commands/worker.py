"""The options of ``postdiff worker``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import checks
from autotune.cli.arguments import Device, Quiet
from autotune.cli.models import ModelSource
from autotune.core.extras import require_tuner


def worker(
    storage: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="Database URL that 'postdiff tune' was given, such as postgresql+psycopg://user@host/name.",
        ),
    ],
    study_name: Annotated[str, typer.Option(help="Name that 'postdiff tune' was given.")],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for pictures; one that all workers see shows them in one dashboard.",
            show_default="runs/STUDY_NAME",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Where the model is on this machine.", show_default="where it is on the tuner's"),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        str,
        typer.Option(metavar="N", help="Processes on this machine; auto is one for every GPU, and one on the CPU."),
    ] = "auto",
    quiet: Quiet = False,
) -> int:
    """Join a search that 'postdiff tune' began, on any number of machines, until it needs no more workers."""
    require_tuner("worker")
    from autotune.cli.worker import WorkerOptions, run_worker

    checked = WorkerOptions(
        storage=checks.storage(storage) or storage,
        study_name=study_name,
        model=None if model is None else ModelSource.find(model),
        device=checks.device(device),
        workers=checks.workers(workers),
        out=checks.folder_to_write(out or Path("runs") / study_name),
        quiet=quiet,
    )
    return run_worker(checked)
