"""The program ``postdiff``: its commands, each of which is a module. Nothing here loads torch."""

from __future__ import annotations

from typing import Annotated

import typer

from autotune.cli.commands import COMMANDS
from autotune.cli.faults import Command, Commands

app = typer.Typer(
    name="postdiff",
    help="Find, price and run the policy that makes a text-to-image pipeline cheaper.",
    cls=Commands,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from autotune.cli.version import version_text

        typer.echo(version_text())
        raise typer.Exit


@app.callback()
def postdiff(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the versions that matter and exit."
        ),
    ] = False,
) -> None:
    """Find, price and run the policy that makes a text-to-image pipeline cheaper."""


for command in COMMANDS:
    app.command(cls=Command)(command)
