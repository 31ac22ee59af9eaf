"""The options of ``postdiff describe``."""

from __future__ import annotations

from typing import Annotated

import typer

from autotune.cli import checks
from autotune.cli.arguments import DTypeOption, Height, Json, Tier, Width
from autotune.cli.models import ModelSource
from autotune.core.errors import InputError


def describe(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|POLICY.json",
            help="Shipped model, folder of a diffusers pipeline, or Hugging Face Hub id; or a policy's file.",
        ),
    ] = "emoji-unet",
    model: Annotated[
        str | None,
        typer.Option(help="What a policy is for.", show_default="the shipped model that it was made for"),
    ] = None,
    tier: Tier = None,
    height: Height = None,
    width: Width = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Levels of a model's units to show.", show_default="all")
    ] = None,
    unfold: Annotated[bool, typer.Option("--all", help="Show alike units one by one.")] = False,
    dtype: DTypeOption = "auto",
    json: Json = False,
) -> None:
    """Show what a model consists of and what each part costs; or say what policies do, and draw the plan of one."""
    height, width = checks.side("height", height), checks.side("width", width)
    from autotune.cli.describe_policy import is_policy

    if is_policy(subject):
        from autotune.cli.describe_policy import model_of, print_policy, print_tiers
        from autotune.cli.tiers import policies_to_show
        from autotune.policy import PolicySet

        policy = policies_to_show(subject, tier, None)
        if isinstance(policy, PolicySet):
            if model is not None:
                policies_to_show(subject, None, ModelSource.find(model))
            print_tiers(policy, as_json=json)
            return
        print_policy(policy, model_of(policy, model), height=height, width=width, unfold=unfold, as_json=json)
        return
    if tier is not None:
        raise InputError(f"--tier {tier}: goes with a file of several policies, and {subject} is none")
    if model is not None:
        raise InputError(f"--model {model}: goes with a policy's file, and {subject} is none")
    source = ModelSource.find(subject)

    from autotune.cli.describe import print_description

    print_description(source, height=height, width=width, dtype=dtype, depth=depth, unfold=unfold, as_json=json)
