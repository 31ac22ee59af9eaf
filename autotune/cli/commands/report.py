"""The options of ``postdiff report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import checks
from autotune.core.extras import require_tuner


def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/emoji-unet-40pct.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Rewrite it whenever the search gets further, until it ends or Ctrl-C.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="RUN/report.html")] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Database URL the run was given.", show_default="what the folder says"),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print what the page says as a JSON document, one line a page.")
    ] = False,
) -> None:
    """Write report.html, one page with everything about a run, finished or not; no model is loaded."""
    require_tuner("report")
    from autotune.cli.report import run_report

    page = None if out is None else checks.file_to_write(out)
    run_report(run_dir, storage=checks.storage(storage), out=page, watch=watch, as_json=json)
