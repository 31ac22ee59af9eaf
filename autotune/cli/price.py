"""``postdiff price``: what a policy costs and where the cost goes, without running it."""

from __future__ import annotations

import json
import sys
from typing import TextIO, cast

from autotune.cli.models import DType, ModelSource
from autotune.cli.price_text import print_quote, print_quotes
from autotune.cli.quote import quote
from autotune.core.faults import during
from autotune.cost import Profile
from autotune.cost.releases import versions
from autotune.policy import Policy, PolicySet


def print_price(
    source: ModelSource,
    asked: Policy | PolicySet,
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
    """Price a policy, or every tier in a line of its own, on ``file``, by default stdout.

    Arguments not named here as of :func:`autotune.cli.quote.quote`.

    Args:
        asked: the policy or the tiers.
        dtype: precision of the model, which decides what kept features take; ``auto`` is the target's, if any.
        as_json: as a JSON document.
    """
    if dtype == "auto" and target is not None:
        dtype = cast(DType, target.dtype)
    with during("while loading the model"):
        pipe = source.weightless_pipeline(dtype)
    if target is not None:
        guided = target.model.guided if guided is None else guided
        for doubt in target.doubts(dtype=str(pipe.dtype).removeprefix("torch."), versions=versions()):
            print(f"postdiff: {doubt}", file=sys.stderr)
    tiers = asked.tiers if isinstance(asked, PolicySet) else {asked.id: asked}
    quotes = {
        name: quote(
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
        for name, policy in tiers.items()
    }
    if as_json:
        documents = {name: found.to_dict() for name, found in quotes.items()}
        print(json.dumps({"tiers": documents} if isinstance(asked, PolicySet) else documents[asked.id]), file=file)
    elif isinstance(asked, PolicySet):
        print_quotes(quotes, file)
    else:
        print_quote(quotes[asked.id], file)
