"""The options of ``postdiff dashboard``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import checks
from autotune.core.extras import require_tuner


def dashboard(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/emoji-unet-40pct.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this machine's alone.")] = "127.0.0.1",
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Database URL the run was given.", show_default="study.db in the folder"),
    ] = None,
) -> None:
    """Open the Optuna dashboard on a run's study and pictures."""
    require_tuner("dashboard")
    from autotune.cli.dashboard import serve

    serve(run_dir, checks.storage(storage), host, port)
