"""``postdiff describe policy.json``: a policy in plain words and as a picture of its plan."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from autotune.cli.models import ModelSource
from autotune.core.errors import PolicyError
from autotune.core.faults import during
from autotune.models.shipped import DEMO_NAMES
from autotune.plan import Plan
from autotune.policy import Policy, PolicySet
from autotune.policy.words import certified_in_words, in_words
from autotune.report.plan_picture import WORDS, PlanPicture, draw
from autotune.report.plan_text import PlanText
from autotune.report.tiers import tier_lines, tiers_document, tiers_table

# Columns where the output is no terminal.
_WIDTH = 100


def model_of(policy: Policy, model: str | None) -> ModelSource | None:
    """The model that a policy is shown against: ``model``, else the shipped one that it was made for, else None.

    Raises:
        InputError: there is no such model, or the policy was made for another one.
    """
    if model is not None:
        source = ModelSource.find(model)
        source.check_policy(policy.model)
        return source
    for source in map(ModelSource.find, DEMO_NAMES):
        try:
            source.check_policy(policy.model)
        except PolicyError:
            continue
        return source
    return None


def print_policy(
    policy: Policy,
    source: ModelSource | None,
    *,
    height: int | None = None,
    width: int | None = None,
    unfold: bool = False,
    as_json: bool = False,
    file: TextIO | None = None,
) -> None:
    """Describe a policy on ``file``, by default stdout.

    Args:
        policy: the policy.
        source: its model, of which only configs are read; None leaves the picture out.
        height: of the pictures, in pixels; by default what the policy was made for, else the model's own.
        width: likewise.
        unfold: one line per unit, where those that do the same share one otherwise.
        as_json: as a JSON document.

    Raises:
        PolicyError: the policy does not fit the model.
    """
    picture = None if source is None else _picture(policy, source, height, width, unfold=unfold)
    if as_json:
        print(json.dumps(_document(policy, source, picture)), file=file)
        return
    console = Console(highlight=False, file=file)
    if not console.is_terminal:
        console.width = _WIDTH
    parts: list[RenderableType] = [Text(policy.id, "bold"), Text(in_words(policy)), *_records(policy)]
    if source is not None and picture is not None:
        parts += [Text(), Text(f"Its plan on {source.name}:\n"), PlanText(picture)]
    else:
        pipeline = policy.model.pipeline if policy.model else "pipeline"
        parts += [Text(), Text(f"For the picture of its plan name the {pipeline} that it was made for: --model M.")]
    console.print(*parts, sep="\n", soft_wrap=False)


def print_tiers(policies: PolicySet, *, as_json: bool = False, file: TextIO | None = None) -> None:
    """Describe all policies of a set on ``file``, by default stdout, with what each costs and how it scored."""
    lines = tier_lines(policies)
    if as_json:
        documents = {name: _document(policy, None, None) for name, policy in policies.tiers.items()}
        print(json.dumps({"tiers": documents, "summary": tiers_document(lines)}), file=file)
        return
    console = Console(highlight=False, file=file)
    if not console.is_terminal:
        console.width = _WIDTH
    console.print(tiers_table(lines))
    for line in lines:
        console.print(Text.assemble((line.name, "bold"), f": {line.words}"))
    console.print("\nThe plan of one: --tier NAME.")


def _picture(
    policy: Policy, source: ModelSource, height: int | None, width: int | None, *, unfold: bool
) -> PlanPicture:
    # Here, because it brings torch, which a policy in words does without.
    from autotune.cost import Pricer

    if policy.model is not None:
        height, width = height or policy.model.height, width or policy.model.width
    with during("while loading the model"):
        pipe = source.weightless_pipeline()
    # What says when guidance runs is meant for calls that have it.
    pricer = Pricer(pipe, height, width, guided=None if policy.guidance is None else True)
    plan: Plan = pricer.plan(policy)
    return draw(plan, pricer.table(pricer.height, pricer.width), unfold=unfold)


def _records(policy: Policy) -> list[RenderableType]:
    """What the file says of cost, quality and origin, where it says anything."""
    facts: dict[str, str] = {}
    if policy.cost is not None:
        facts["compute"] = (
            f"{policy.cost.relative:.1%} of the full run, {policy.cost.flops / 1e9:,.4g} GFLOPs a picture"
        )
        for time in policy.cost.measured:
            facts["time"] = (
                f"{time.relative:.1%} of the full run, {time.ms_per_image:.4g} ms a picture on {time.device}"
            )
    if policy.quality is not None:
        quality, loss = policy.quality, policy.quality.policy.loss
        loss_alone = quality.policy.alignment is None
        facts["loss"] = (
            f"{loss.value:.3f} (95 % interval {loss.low:.3f} to {loss.high:.3f}; 0 is the full run) on"
            f" {quality.images} pictures of {quality.prompts} held-out {'inputs' if loss_alone else 'prompts'}"
        )
        if quality.certificate is not None:
            facts["certified"] = certified_in_words(quality.certificate)
        error = quality.policy.error
        if error is not None:
            facts["error"] = (
                f"{error.value:.3f} (95 % interval {error.low:.3f} to {error.high:.3f}; 0 is the exact run with the"
                " same guidance, 1 are coarse pictures)"
            )
    if policy.provenance is not None and policy.provenance.study:
        facts["from"] = f"study {policy.provenance.study}" + (
            f", {policy.provenance.date}" if policy.provenance.date else ""
        )
    if not facts:
        return []
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for heading, fact in facts.items():
        grid.add_row(heading, Text(fact))
    return [Text(), grid]


def _document(policy: Policy, source: ModelSource | None, picture: PlanPicture | None) -> dict[str, Any]:
    document: dict[str, Any] = {"id": policy.id, "words": in_words(policy), "policy": policy.to_dict()}
    if source is not None and picture is not None:
        document |= {"model": source.name, "plan": plan_document(picture)}
    return document


def plan_document(picture: PlanPicture) -> dict[str, Any]:
    """A plan picture as JSON has it: actions by name."""
    return asdict(picture) | {
        "rows": [asdict(row) | {"actions": [WORDS[action] for action in row.actions]} for row in picture.rows]
    }


def is_policy(text: str) -> bool:
    """Whether an argument of ``postdiff describe`` names a policy's file rather than a model."""
    return text.endswith(".json") or Path(text).is_file()
