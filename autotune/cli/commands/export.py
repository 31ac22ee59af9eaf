"""The options of ``postdiff export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from autotune.cli import checks
from autotune.cli.arguments import Guidance, Model
from autotune.cli.models import ModelSource


def export(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Policy file or hub id.")],
    to: Annotated[Literal["cache-dit", "diffusers"], typer.Option(metavar="ENGINE", help="cache-dit or diffusers.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The configuration: YAML of cache-dit, JSON of diffusers.")],
    model: Model = "emoji-unet",
    guidance: Guidance = None,
) -> None:
    """Write a policy as another engine's configuration, or say which lever that engine has not; no weights needed."""
    from autotune.policy.loading import load_policy

    source = ModelSource.find(model)
    loaded = load_policy(policy)
    source.check_policy(loaded.model)
    checks.file_to_write(out)

    from autotune.cli.export import run_export

    run_export(source, loaded, to, out, guided=guidance)
