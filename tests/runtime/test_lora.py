"""LoRA layers take the place of modules, units among them, whenever they are loaded, fused and unloaded."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import Tensor

from autotune.policy import Policy
from autotune.runtime import applied, apply_policy, remove_policy
from tests.support.ecosystem import denoiser_of, make, plain, policy_of, reuse, run
from tests.support.techniques import COMPUTE, RATE_AND_ALL

# In both, layers that are units themselves and layers inside of units.
TARGETS = {
    "sd": ["conv_in", "conv1", "attn1.to_q", "ff.net.0.proj"],
    "flux": ["proj_mlp", "attn.to_q", "ff.net.0.proj"],
}
UNIT = {"sd": "conv_in", "flux": "single_transformer_blocks.2.proj_mlp"}
each_pipeline = pytest.mark.parametrize("name", TARGETS)


@cache
def adapter(name: str) -> dict[str, Tensor]:
    """A tiny adapter as a file would hold it."""
    pipe = make(name)
    denoiser = denoiser_of(name, pipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        denoiser.add_adapter(LoraConfig(r=2, init_lora_weights=False, target_modules=TARGETS[name]))
    prefix = "unet" if name == "sd" else "transformer"
    return {f"{prefix}.{key}": value for key, value in get_peft_model_state_dict(denoiser).items()}


def load(name: str, pipe: Any) -> None:
    pipe.load_lora_weights(dict(adapter(name)))


def policies(name: str, pipe: Any) -> tuple[Policy, ...]:
    return policy_of(name, pipe), reuse(UNIT[name]), policy_of(name, pipe, RATE_AND_ALL)


@cache
def adapted(name: str) -> tuple[Tensor, ...]:
    """The adapted pipeline by itself and under each policy, loaded before any."""
    pipe = make(name)
    load(name, pipe)
    results = [run(name, pipe)]
    for policy in policies(name, pipe):
        with applied(pipe, policy):
            results.append(run(name, pipe))
    return tuple(results)


def calls_of(module: Any) -> list[None]:
    calls: list[None] = []
    module.register_forward_hook(lambda *_: calls.append(None))
    return calls


@each_pipeline
@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("called_before", [False, True])
def test_loaded_under_a_policy_or_before_it_is_the_same(name: str, index: int, called_before: bool) -> None:
    pipe = make(name)
    apply_policy(pipe, policies(name, pipe)[index])
    first = run(name, pipe) if called_before else None
    load(name, pipe)
    assert torch.equal(run(name, pipe), adapted(name)[1 + index])
    pipe.unload_lora_weights()
    again = run(name, pipe)
    assert first is None or torch.equal(again, first)
    remove_policy(pipe)
    assert torch.equal(run(name, pipe), plain(name))


@each_pipeline
@pytest.mark.parametrize("index", [0, 1, 2])
def test_removing_the_policy_restores_the_adapted_pipeline(name: str, index: int) -> None:
    pipe = make(name)
    load(name, pipe)
    with applied(pipe, policies(name, pipe)[index]):
        run(name, pipe)
    assert torch.equal(run(name, pipe), adapted(name)[0])
    pipe.unload_lora_weights()
    assert torch.equal(run(name, pipe), plain(name))
    assert not any("forward" in vars(module) for module in denoiser_of(name, pipe).modules())


@each_pipeline
@pytest.mark.parametrize("where", ["before", "under"])
def test_a_unit_that_is_adapted_computes_when_planned_and_only_then(name: str, where: str) -> None:
    pipe = make(name)
    if where == "before":
        load(name, pipe)
    apply_policy(pipe, reuse(UNIT[name]))
    if where == "under":
        load(name, pipe)
    layer = denoiser_of(name, pipe).get_submodule(UNIT[name])
    base, low_rank = calls_of(layer.base_layer), calls_of(layer.lora_A["default_0"])
    run(name, pipe, guidance=False)
    assert len(base) == len(low_rank) == len(COMPUTE)


@each_pipeline
def test_fused_under_a_policy_or_before_it_is_the_same(name: str) -> None:
    pipe = make(name)
    everything, *_ = policies(name, pipe)
    load(name, pipe)
    pipe.fuse_lora()
    fused = run(name, pipe)
    with applied(pipe, everything):
        under = run(name, pipe)

    pipe = make(name)
    apply_policy(pipe, everything)
    load(name, pipe)
    pipe.fuse_lora()
    assert torch.equal(run(name, pipe), under)
    remove_policy(pipe)
    assert torch.equal(run(name, pipe), fused)
