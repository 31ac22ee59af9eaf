"""The options of ``postdiff schema``."""

from __future__ import annotations

import typer


def schema() -> None:
    """Print the JSON Schema of policy files, for editors and other programs that check them."""
    from json import dumps

    from autotune.policy.schema import policy_schema

    typer.echo(dumps(policy_schema(), indent=2))
