"""``postdiff price``: what a policy costs, without running it."""

from __future__ import annotations

import json
from dataclasses import asdict

from autotune.cli.models import ModelSource
from autotune.policy import Policy


def describe_price(source: ModelSource, policy: Policy, *, as_json: bool) -> str:
    """The cost of one picture under ``policy``, in a few lines or as a JSON document."""
    pipe = source.load("cpu")

    from autotune.cost import price

    cost = price(pipe, policy)
    if as_json:
        return json.dumps({"policy": policy.id, "model": source.name} | asdict(cost))
    return "\n".join(
        (
            f"{policy.id} on {source.name}, one picture",
            f"  denoising     {cost.flops / 1e9:,.3f} GFLOPs, {cost.relative:.1%} of the full run",
            f"  conv + linear {cost.macs_conv_linear / 1e9:,.3f} GMACs",
            f"  kept features {cost.cache_bytes / 2**20:,.2f} MiB",
        )
    )
