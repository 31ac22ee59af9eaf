"""The options of ``postdiff price``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import checks
from autotune.cli.arguments import DTypeOption, Guidance, Height, Json, Model, Tier, Width
from autotune.cli.models import ModelSource


def price(
    policy: Annotated[str, typer.Argument(metavar="POLICY", help="Policy file or hub id.")],
    tier: Tier = None,
    model: Model = "emoji-unet",
    height: Height = None,
    width: Width = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Pictures in a call.", show_default="1, or the target's smallest")
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Profile of the hardware to predict milliseconds on.", show_default="none")
    ] = None,
    guidance: Guidance = None,
    strength: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="Of image-to-image, which leaves out its first steps.", show_default="1"),
    ] = None,
    dtype: DTypeOption = "auto",
    json: Json = False,
) -> None:
    """Say what a policy costs, by step and by kind of unit, or what each of several does; no weights are needed."""
    from autotune.cli.tiers import policies_to_show
    from autotune.cost import load_profile

    source = ModelSource.find(model)
    loaded = policies_to_show(policy, tier, source)
    profile = None if target is None else load_profile(target)
    if profile is not None:
        source.check_profile(profile, batch)
    height, width = checks.side("height", height), checks.side("width", width)

    from autotune.cli.price import print_price

    if batch is None:
        batch = 1 if profile is None else min(times.batch for times in profile.batches)
    print_price(
        source,
        loaded,
        height=height,
        width=width,
        batch=batch,
        guided=guidance,
        strength=strength,
        target=profile,
        dtype=dtype,
        as_json=json,
    )
