"""The options of ``postdiff tune``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.cli import checks
from autotune.cli.arguments import Device, DTypeOption, Model, Study
from autotune.cli.declared import reads
from autotune.cli.models import ModelSource
from autotune.cli.requests import TuneRequest
from autotune.cli.tiers import tier_budgets, tier_floors
from autotune.core.errors import InputError
from autotune.core.extras import require_tuner
from autotune.core.naming import budget_labels, default_study_name
from autotune.options import TuneOptions
from autotune.options.declare import Topic

# From where every step hurts to where hardly any is missed.
_FRONTIER = ("20%", "30%", "40%", "50%", "60%", "80%")


@reads(TuneOptions)
def tune(
    context: typer.Context,
    options: TuneOptions,
    study: Study = None,
    model: Model = "emoji-unet",
    budget: Annotated[
        list[str],
        typer.Option(
            help="Most a policy may cost: 40% (of the full run's FLOPs), 1.2TFLOPs, 850ms or 40%ms (of a call), 2x (a"
            " speed-up). Joined by commas all must hold; repeat it for a policy each.",
            show_default="40%",
            metavar="COST",
            rich_help_panel=Topic.FIRST,
        ),
    ] = [],  # noqa: B006
    tier: Annotated[
        list[str],
        typer.Option(
            help="NAME=COST or NAME=loss:X, repeated: policies in one file.",
            show_default="none",
            metavar="TIER",
            rich_help_panel=Topic.BUDGET,
        ),
    ] = [],  # noqa: B006
    frontier: Annotated[
        bool,
        typer.Option(
            "--frontier",
            help=f"A policy at {', '.join(_FRONTIER[:-1])} and {_FRONTIER[-1]} of FLOPs.",
            rich_help_panel=Topic.BUDGET,
        ),
    ] = False,
    device: Device = "auto",
    devices: Annotated[
        str | None,
        typer.Option(
            help="A worker on each: cuda:0,cuda:1 or all.",
            metavar="NAMES",
            show_default="none",
            rich_help_panel=Topic.PLACE,
        ),
    ] = None,
    dtype: DTypeOption = "auto",
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Say what known recipes cost and how long the search would take, and stop.",
            rich_help_panel=Topic.OUTPUT,
        ),
    ] = False,
) -> int:
    """Search for the best policy within a budget and export it; the same command resumes an interrupted run."""
    require_tuner("tune")
    from autotune.cli.study_file import given_over_file, knobs_of
    from autotune.cost import Profile, parse_budget

    budgets_named: dict[str, Any] = {"budget": budget, "tier": tier, "frontier": frontier}
    said = [name for name, value in budgets_named.items() if value]
    if len(said) > 1:
        left = given_over_file(context, **{name: budgets_named[name] for name in said})
        budgets_named |= dict(zip(said, left, strict=True))
        said = [name for name, value in budgets_named.items() if value]
    if len(said) > 1:
        first, other = said[:2]
        raise InputError(f"--{other} takes budgets of its own; leave --{first} out, or name all of them")
    tiers = tier_budgets(budgets_named["tier"])
    floors = tier_floors(tiers)
    texts = [*_FRONTIER] if budgets_named["frontier"] else [*tiers.values()] or budgets_named["budget"] or ["40%"]
    if options.floor is not None:
        if tiers or budgets_named["frontier"] or len(budgets_named["budget"]) > 1:
            raise InputError("--max-loss and --max-change go with one --budget at most; a tier's own floor is loss:X")
        floors, texts = {"": options.floor}, budgets_named["budget"]
    elif floors and options.explain:
        raise InputError("--explain compares budgets, and the tiers have none; leave it out")
    budgets = tuple(parse_budget(text) for text in ([] if tiers and floors else texts))
    goals = [str(goal) for goal in (*floors.values(), *budgets)]
    budget_labels(goals, "floor" if floors else "budget")
    source = ModelSource.find(model)
    prompts, inputs = options.prompts, options.inputs
    if prompts is not None and inputs is not None:
        prompts, inputs = given_over_file(context, prompts=prompts, inputs=inputs)
    checks.either(prompts, inputs)
    source.card.check_files([name for name, value in vars(options).items() if value is not None])
    if prompts is None and inputs is None and source.card.prompts is None and source.depicts_prompts:
        raise InputError(
            f"--model {model}: a model of your own is tuned on prompts of your own; give --prompts or --inputs FILE"
        )
    if isinstance(options.target, Profile):
        source.check_profile(options.target, options.call_batch)
    subject = Path(model).resolve().name if study is None else study.stem
    name = options.study_name or default_study_name(subject, *goals)
    options = replace(
        options,
        prompts=prompts,
        inputs=inputs,
        space=knobs_of(study) if options.space is None and study is not None else options.space,
        study_name=name,
        run_dir=checks.folder_to_write(Path("runs") / name) if options.run_dir is None else options.run_dir,
    )
    first, more = checks.device(device), list[str]()
    if devices is not None:
        if first != "auto":
            raise InputError("--devices and --device say the same thing twice; leave one of them out")
        checks.storage_to_share(options.storage)
        named = checks.devices(devices)

        from autotune.cli.models import devices_here

        first, *more = devices_here(named)
    request = TuneRequest(source, budgets, options, first, dtype, tuple(tiers), tuple(floors.values()), tuple(more))

    if dry_run:
        from autotune.cli.dry_run import run_dry

        return run_dry(request)

    from autotune.cli.tune import run_tune

    return run_tune(request)
