"""DeepCache's settings as policies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from DeepCache import DeepCacheSDHelper

from autotune.pipelines.units import find_units
from autotune.policy import CacheRule, Policy

# How many skip connections DeepCache takes every block to have, whatever its layers.
LAYERS = 3


def deepcache_unit(unet: Any, branch: int) -> str:
    """The unit that DeepCache's ``cache_branch_id`` reuses.

    DeepCache numbers skip connections from the outside: branch 3 b + l is layer l of the b-th block
    from below, and of the b-th up block from the end all layers but the last l + 1 are reused.
    The only output of them that is read is that of the last one.
    """
    from_end, layer = divmod(branch, LAYERS)
    position = len(unet.up_blocks) - 1 - from_end
    if layer == LAYERS - 1:
        # Every layer of the up block computes; what goes into it is reused.
        return f"up_blocks.{position - 1}" if position else "mid_block"
    name = f"up_blocks.{position}.attentions.{LAYERS - 2 - layer}"
    return name if name in find_units(unet).index_of else name.replace("attentions", "resnets")


def deepcache_policy(unet: Any, interval: int, branch: int, steps: int) -> Policy:
    """The policy that computes what ``DeepCacheSDHelper.set_params(interval, branch)`` does."""
    rule = CacheRule(units=(deepcache_unit(unet, branch),), compute_steps=tuple(range(0, steps, interval)))
    return Policy(steps=steps, cache=(rule,))


@contextmanager
def deepcache(pipe: Any, interval: int, branch: int) -> Iterator[DeepCacheSDHelper]:
    """Run under DeepCache inside a ``with`` block."""
    helper = DeepCacheSDHelper(pipe=pipe)
    helper.set_params(cache_interval=interval, cache_branch_id=branch)
    helper.enable()
    try:
        yield helper
    finally:
        helper.disable()
