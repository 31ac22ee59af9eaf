"""The options of ``postdiff compare``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import checks
from autotune.cli.arguments import Device, DTypeOption, Model
from autotune.cli.declared import reads
from autotune.cli.models import ModelSource
from autotune.cli.requests import CompareRequest
from autotune.core.errors import InputError
from autotune.core.extras import require_tuner
from autotune.core.naming import default_comparison_name
from autotune.options import CompareOptions
from autotune.options.declare import Topic


@reads(CompareOptions)
def compare(
    policy: Annotated[
        list[str],
        typer.Option(help="File of a policy or of tiers, or hub id; repeat it for more.", rich_help_panel=Topic.FIRST),
    ],
    options: CompareOptions,
    model: Model = "emoji-unet",
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    json: Annotated[
        bool,
        typer.Option("--json", help="Print a JSON document instead of the table.", rich_help_panel=Topic.OUTPUT),
    ] = False,
) -> int:
    """Evaluate policies and the full run side by side; the same command resumes an interrupted run."""
    require_tuner("compare")
    source = ModelSource.find(model)
    checks.either(options.prompts, options.inputs)
    source.card.check_files([name for name, value in vars(options).items() if value is not None])
    without = options.prompts is None and options.inputs is None and source.card.prompts is None
    if without and source.depicts_prompts:
        raise InputError(
            f"--model {model}: policies of it are compared on prompts of your own; give --prompts or --inputs FILE"
        )
    policies = checks.policies(policy, source)
    folder = options.run_dir or checks.folder_to_write(Path("runs") / default_comparison_name(policies))
    request = CompareRequest(source, policies, replace(options, run_dir=folder), checks.device(device), dtype, json)

    from autotune.cli.compare import run_compare

    return run_compare(request)
