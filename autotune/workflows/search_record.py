"""What a search tells those who show it, for ``search.json`` in its folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url

from autotune.cost import Pricer
from autotune.evaluation.inputs import with_pictures
from autotune.models.shipped import shipped_name
from autotune.pipelines.families import family_of
from autotune.policy import Policy
from autotune.results.search_record import FullRun, SearchRecord, SizedTable
from autotune.runtime.models import denoiser_of, root_of, scale_argument
from autotune.runtime.strength import skipped_steps, strength_of
from autotune.workflows.setup import Setup


def keep_search_record(
    setup: Setup,
    folder: Path,
    *,
    study: str,
    storage: str | None,
    policies: Iterable[Policy] = (),
    exact_share: float | None = None,
    seconds: Mapping[str, float] = {},
) -> None:
    """Write what is needed to show the search without its model.

    Args:
        setup: the search.
        folder: the run's.
        study: the study's name.
        storage: its URL; None is SQLite in ``folder`` or the one above.
        policies: whose cost is to be shown besides the recipes'.
        exact_share: of what was spent, that of exact runs.
        seconds: that each part of the run took.
    """
    signature = family_of(setup.pipe).call_signature(setup.pipe)
    full, pricer, limits = setup.full, setup.pricer, setup.proposer.limits
    shown = [full, *(recipe.proposal.policy for recipe in setup.recipes), *policies]
    SearchRecord(
        study=study,
        storage=None if storage is None else _without_password(storage),
        model=setup.model_name,
        source=_source(setup),
        height=setup.maker.height,
        width=setup.maker.width,
        guidance_scale=setup.maker.guidance_scale,
        budget=str(setup.budget),
        most_flops=limits.flops,
        most_ms=limits.latency_ms,
        full=FullRun(
            policy=full,
            flops=pricer.price(full).flops,
            latency_ms=setup.deployed.price(full, setup.call_batch).latency_ms,
        ),
        structure=pricer.structure,
        latents=(pricer.height, pricer.width),
        guided=pricer.guided,
        itemsize=next(root_of(denoiser_of(setup.pipe)).parameters()).element_size(),
        calls=_calls(pricer, full, setup.proposer.max_steps),
        tables=_tables(pricer, shown),
        skipped=_skipped(setup, full),
        noun=setup.noun,
        aligned=setup.judges.text,
        call=_by_files(setup.maker.call),
        guidance_argument=scale_argument(setup.pipe, signature),
        takes_size=signature.takes_size,
        example=_by_files(setup.held_out.rows[0].arguments),
        exact_share=exact_share,
        seconds={name: round(each, 1) for name, each in seconds.items()},
    ).save(folder)


def _tables(pricer: Pricer, policies: Iterable[Policy]) -> tuple[SizedTable, ...]:
    sizes = {(step.height, step.width) for policy in policies for step in pricer.plan(policy).steps}
    return tuple(SizedTable(height=size[0], width=size[1], table=pricer.table(*size)) for size in sorted(sizes))


def _by_files(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with their pictures by the files that they are in."""
    return {
        name: with_pictures(value, lambda picture: str(picture.path or picture.name))
        for name, value in arguments.items()
    }


def _skipped(setup: Setup, full: Policy) -> dict[int, int]:
    strength = strength_of(setup.pipe, setup.maker.call)
    counts = range(1, max(full.steps, setup.proposer.max_steps) + 1)
    found = {steps: skipped_steps(setup.pipe, steps, strength) for steps in counts}
    return {steps: count for steps, count in found.items() if count}


def _calls(pricer: Pricer, full: Policy, max_steps: int) -> dict[int, tuple[int, ...]]:
    """Under the pipeline's own solver calls depend on nothing but the number of steps."""
    if len(pricer.plan(full, skipped_calls=0).steps) == full.steps:
        return {}
    counted = {
        steps: Counter(call.step for call in pricer.plan(Policy(steps=steps), skipped_calls=0).steps)
        for steps in range(1, max(full.steps, max_steps) + 1)
    }
    return {steps: tuple(calls[step] for step in range(steps)) for steps, calls in counted.items()}


def _source(setup: Setup) -> str | None:
    path = str(getattr(setup.pipe, "config", {}).get("_name_or_path") or "")
    return (shipped_name(Path(path)) or path) if path else None


def _without_password(url: str) -> str:
    given = make_url(url).difference_update_query(["password"])
    return URL.create(
        given.drivername, given.username, None, given.host, given.port, given.database, given.query
    ).render_as_string()
