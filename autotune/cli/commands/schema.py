"""The options of ``postdiff schema``."""

from __future__ import annotations

from typing import Annotated

import typer


def schema(
    tiers: Annotated[bool, typer.Option("--tiers", help="Of files that hold several policies.")] = False,
) -> None:
    """Print the JSON Schema of policy files, for editors and other programs that check them."""
    from json import dumps

    from autotune.policy.schema import policies_schema, policy_schema

    typer.echo(dumps(policies_schema() if tiers else policy_schema(), indent=2))
