"""The options of ``postdiff generate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import checks
from autotune.cli.arguments import Device, DTypeOption, GuidanceScale, Height, Inputs, Model, Tier, Width
from autotune.cli.models import ModelSource
from autotune.core.errors import InputError
from autotune.core.naming import FULL_TIER


def generate(
    out: Annotated[Path, typer.Option(metavar="PATH", help="Picture file for one prompt or input, else a folder.")],
    prompt: Annotated[
        list[str],
        typer.Option(metavar="TEXT", help="What to show; repeat it for more pictures.", show_default="--inputs"),
    ] = [],  # noqa: B006
    inputs: Inputs = None,
    policy: Annotated[str | None, typer.Option(help="Policy file or hub id.", show_default="the full run")] = None,
    tier: Tier = None,
    model: Model = "emoji-unet",
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture; each further one takes the next.")] = 0,
    height: Height = None,
    width: Width = None,
    guidance_scale: GuidanceScale = None,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
) -> None:
    """Make pictures, under a policy or by the full run."""
    from autotune.cli.generate import generate_pictures
    from autotune.cli.tiers import policy_to_run

    source = ModelSource.find(model)
    if policy is None and tier not in (None, FULL_TIER):
        raise InputError(f"--tier {tier}: of which policies? give their file as --policy")
    loaded = None if policy is None else policy_to_run(policy, tier, source)
    rows = checks.rows_to_generate(prompt, inputs, source)
    files = checks.picture_files(out, [row.label for row in rows])
    generate_pictures(
        source,
        loaded,
        rows,
        files,
        seed=seed,
        height=checks.side("height", height),
        width=checks.side("width", width),
        guidance_scale=guidance_scale,
        device=checks.device(device),
        dtype=dtype,
    )
