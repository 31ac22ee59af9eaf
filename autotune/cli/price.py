"""``postdiff price``: what a policy costs and where the cost goes, without running it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TextIO, cast

from autotune.cli.models import DType, ModelSource
from autotune.cli.price_text import print_quote, print_quotes
from autotune.cli.quote import Quote, quote
from autotune.core.faults import during
from autotune.cost import Profile
from autotune.cost.releases import versions
from autotune.policy import Policy, PolicySet


def print_price(
    source: ModelSource,
    policy: Policy,
    *,
    height: int | None = None,
    width: int | None = None,
    batch: int = 1,
    guided: bool | None = None,
    strength: float | None = None,
    target: Profile | None = None,
    dtype: DType = "auto",
    as_json: bool = False,
    file: TextIO | None = None,
) -> None:
    """Price a policy on ``file``, by default stdout; arguments not named here as of :func:`quote`.

    Args:
        dtype: precision of the model, which decides what kept features take; ``auto`` is the target's, if any.
        as_json: as a JSON document.
    """
    (found,) = _quotes(source, [policy], height, width, batch, guided, strength, target, dtype)
    if as_json:
        print(json.dumps(found.to_dict()), file=file)
        return
    print_quote(found, file)


def print_prices(
    source: ModelSource,
    policies: PolicySet,
    *,
    height: int | None = None,
    width: int | None = None,
    batch: int = 1,
    guided: bool | None = None,
    strength: float | None = None,
    target: Profile | None = None,
    dtype: DType = "auto",
    as_json: bool = False,
    file: TextIO | None = None,
) -> None:
    """Price every tier on ``file``, a line each; arguments as of :func:`print_price`."""
    quotes = _quotes(source, [*policies.tiers.values()], height, width, batch, guided, strength, target, dtype)
    named = dict(zip(policies.tiers, quotes, strict=True))
    if as_json:
        print(json.dumps({"tiers": {name: each.to_dict() for name, each in named.items()}}), file=file)
        return
    print_quotes(named, file)


def _quotes(
    source: ModelSource,
    policies: Sequence[Policy],
    height: int | None,
    width: int | None,
    batch: int,
    guided: bool | None,
    strength: float | None,
    target: Profile | None,
    dtype: DType,
) -> list[Quote]:
    if dtype == "auto" and target is not None:
        dtype = cast(DType, target.dtype)
    with during("while loading the model"):
        pipe = source.weightless_pipeline(dtype)
    if target is not None:
        guided = target.model.guided if guided is None else guided
        for doubt in target.doubts(dtype=str(pipe.dtype).removeprefix("torch."), versions=versions()):
            print(f"postdiff: {doubt}", file=sys.stderr)
    return [
        quote(
            pipe,
            policy,
            model=source.name,
            height=height,
            width=width,
            batch=batch,
            guided=guided,
            strength=strength,
            target=target,
        )
        for policy in policies
    ]
