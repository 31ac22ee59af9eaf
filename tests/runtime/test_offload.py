"""Offloading replaces the forwards of modules, as a policy does: in either order, neither takes the other away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import accelerate
import pytest
import torch
from accelerate.hooks import remove_hook_from_module
from diffusers.hooks import HookRegistry
from diffusers.hooks.group_offloading import (
    GroupOffloadingConfig,
    GroupOffloadingHook,
    GroupOffloadingType,
    LazyPrefetchGroupOffloadingHook,
    ModuleGroup,
)
from torch import nn

from autotune.runtime import apply_policy, remove_policy
from tests.support.ecosystem import CASES, NAMES, denoiser_of, expected, make, plain, policy_of, run

CPU = torch.device("cpu")


def model_offload(pipe: Any, denoiser: Any) -> None:
    # At the end of every call of the pipeline this takes its hooks off and puts new ones on.
    pipe.enable_model_cpu_offload(device="cpu")


def sequential_offload(pipe: Any, denoiser: Any) -> None:
    accelerate.cpu_offload(denoiser, CPU, offload_buffers=True)


def group_offload(pipe: Any, denoiser: Any) -> None:
    denoiser.enable_group_offload(onload_device=CPU, offload_device=CPU, offload_type="leaf_level")


def no_more_offload(pipe: Any, denoiser: Any) -> None:
    pipe.remove_all_hooks()
    remove_hook_from_module(denoiser, recurse=True)
    registry = HookRegistry.check_if_exists_or_initialize(denoiser)
    for hook in ("layer_execution_tracker", "lazy_prefetch_group_offloading", "group_offloading"):
        registry.remove_hook(hook, recurse=True)
    if not registry.hooks:
        del denoiser._diffusers_hook


def prefetching_group_offload(pipe: Any, denoiser: Any) -> None:
    """As with ``use_stream=True``, which needs a GPU: in its first call the denoiser notes the order of its layers."""
    group_offload(pipe, denoiser)
    registry = HookRegistry.check_if_exists_or_initialize(denoiser)
    if registry.get_hook("group_offloading") is None:
        leader = {"offload_leader": denoiser, "onload_leader": denoiser}
        nothing = ModuleGroup(modules=[], offload_device=CPU, onload_device=CPU, **leader)
        config = GroupOffloadingConfig(CPU, CPU, GroupOffloadingType.LEAF_LEVEL, False, False, False)
        registry.register_hook(GroupOffloadingHook(nothing, config=config), "group_offloading")
    registry.register_hook(LazyPrefetchGroupOffloadingHook(), "lazy_prefetch_group_offloading")


OFFLOADS = (model_offload, sequential_offload, group_offload)
each_offload = pytest.mark.parametrize("offload", OFFLOADS, ids=lambda offload: offload.__name__)
each_pipeline = pytest.mark.parametrize("name", NAMES)


def replaced(denoiser: nn.Module) -> set[str]:
    return {name for name, module in denoiser.named_modules() if "forward" in vars(module)}


# By default each pipeline with each offload in one of the orders, in turn.
PAIRS = [
    pytest.param(name, offload, first, marks=[pytest.mark.exhaustive] if (one + other + third) % 2 else [])
    for one, name in enumerate(NAMES)
    for other, offload in enumerate(OFFLOADS)
    for third, first in enumerate(("offload", "policy"))
]


@pytest.mark.parametrize(("name", "offload", "first"), PAIRS)
def test_offload_and_policy_in_either_order(name: str, offload: Callable[..., None], first: str) -> None:
    pipe = make(name)
    denoiser, policy = denoiser_of(name, pipe), policy_of(name, pipe)
    if first == "offload":
        offload(pipe, denoiser)
        apply_policy(pipe, policy)
    else:
        apply_policy(pipe, policy)
        offload(pipe, denoiser)
    for _ in range(2):
        assert torch.equal(run(name, pipe), expected(name))

    remove_policy(pipe)
    other = make(name)
    offload(other, denoiser_of(name, other))
    assert replaced(denoiser) == replaced(denoiser_of(name, other))
    assert torch.equal(run(name, pipe), plain(name))

    no_more_offload(pipe, denoiser)
    assert torch.equal(run(name, pipe), plain(name))


# Those of which the policy's units are among the layers that offloading works on.
@pytest.mark.parametrize(
    ("name", "case"), [*(("pixart-alpha", case) for case in CASES), ("sd", "reuse layers")], ids="-".join
)
def test_offload_that_prefetches_takes_no_hook_away_in_its_first_call(name: str, case: str) -> None:
    """Its own hooks go after the first step, and with them those that were put around them."""
    pipe = make(name)
    prefetching_group_offload(pipe, denoiser_of(name, pipe))
    apply_policy(pipe, policy_of(name, pipe, case))
    assert torch.equal(run(name, pipe), expected(name, case))


@each_offload
@pytest.mark.parametrize("first", ["offload", "policy"])
def test_offload_that_ends_under_a_policy_leaves_it_on(offload: Callable[..., None], first: str) -> None:
    pipe = make("flux")
    denoiser, policy = pipe.transformer, policy_of("flux", pipe)
    if first == "offload":
        offload(pipe, denoiser)
    apply_policy(pipe, policy)
    if first == "policy":
        offload(pipe, denoiser)
    assert torch.equal(run("flux", pipe), expected("flux"))
    no_more_offload(pipe, denoiser)
    assert torch.equal(run("flux", pipe), expected("flux"))
    remove_policy(pipe)
    assert torch.equal(run("flux", pipe), plain("flux"))
    hooks = [module._diffusers_hook.hooks for module in denoiser.modules() if hasattr(module, "_diffusers_hook")]
    assert all("postdiff" not in registered for registered in hooks)
