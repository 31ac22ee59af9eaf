"""Prices where rows are perturbed (PAG): exact whatever the layers, the scale and guidance, and never an old one."""

from __future__ import annotations

from typing import Any

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

import autotune
from autotune.cost import Pricer
from autotune.pipelines.units import find_units
from autotune.policy import CacheRule, Policy
from autotune.runtime import applied
from tests.support.builders import FAMILIES
from tests.support.watch import Watch

TINY = FAMILIES["sd-pag"]
REUSING = Policy(steps=4, cache=(CacheRule(units=("mid_block",), compute_steps=(0, 2)),))
LAYERS = {"the middle": ["mid"], "two blocks": ["down_blocks.1", "up_blocks.1"], "none": []}


def computed(pipe: Any, policy: Policy, *, guided: bool, scale: float) -> int:
    call = TINY.arguments(guidance=guided, pag_scale=scale)
    del call["num_inference_steps"]
    watch = Watch(pipe, pipe.unet, find_units(pipe.unet))
    with sdpa_kernel(SDPBackend.MATH), watch, applied(pipe, policy):
        watch.follow_session()
        TINY.run(pipe, **call)
    return watch.flops


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize("guided", [True, False], ids=["guided", "unguided"])
@pytest.mark.parametrize("scale", [3.0, 0.0])
def test_what_is_priced_is_computed(layers: list[str], guided: bool, scale: float) -> None:
    pipe = TINY.make()
    pipe.set_pag_applied_layers(layers)
    pricer = Pricer(pipe, *TINY.size, guided=guided, call={"pag_scale": scale})
    assert pricer.price(REUSING).flops == computed(pipe, REUSING, guided=guided, scale=scale)


def test_a_perturbed_row_costs_less_than_another() -> None:
    """It computes no attention, and neither queries nor keys, where it is perturbed."""
    calls: tuple[dict[str, Any], ...] = ({}, {"pag_scale": 0.0})
    perturbed, without = (Pricer(TINY.make(), *TINY.size, call=call).full_flops(1) for call in calls)
    assert without < perturbed < without * 1.5


def test_a_price_follows_the_layers() -> None:
    pipe = TINY.make()
    height, width = TINY.size
    before = autotune.price(pipe, REUSING, height=height, width=width)
    pipe.set_pag_applied_layers(["down_blocks.1", "mid", "up_blocks.1"])
    after = autotune.price(pipe, REUSING, height=height, width=width)
    assert after.flops < before.flops
    assert after == Pricer(pipe, height, width).price(REUSING)


def test_it_leaves_the_denoiser_alone() -> None:
    pipe = TINY.make()
    before = dict(pipe.unet.attn_processors)
    Pricer(pipe, *TINY.size).full_cost()
    assert pipe.unet.attn_processors == before
