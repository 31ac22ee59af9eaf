"""Predicted FLOPs equal counted FLOPs, as integers."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from autotune.cost import Pricer
from autotune.evaluation.pictures import generate
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.pipelines.units import find_units
from autotune.policy import Policy
from autotune.runtime import applied, denoiser_of, full_policy
from search_spaces import space_for
from studies.sampling import random_policies
from tests.support.tiny import tiny_sd
from tests.support.watch import Watch


def counted(pipe: Any, policy: Policy, prompts: list[str], **options: Any) -> int:
    """FLOPs of the denoiser while ``pipe`` runs under ``policy``."""
    # The fused attention kernel of the CPU is not counted; the plain one is, and computes the same.
    denoiser = denoiser_of(pipe)
    with Watch(pipe, denoiser, find_units(denoiser)) as watch, applied(pipe, policy), sdpa_kernel(SDPBackend.MATH):
        watch.follow_session()
        generate(pipe, prompts, range(len(prompts)), **options)
    return watch.flops


def test_the_count_is_that_of_torchs_own_counter(tiny: Any) -> None:
    policy = space_for(tiny).sample(1, steps=6)
    counter = FlopCounterMode(display=False)
    with applied(tiny, policy), sdpa_kernel(SDPBackend.MATH), counter:
        generate(tiny, ["a"], [0])
    expected = sum(counter.get_flop_counts()[type(tiny.unet).__name__].values())
    assert counted(tiny, policy, ["a"]) == expected == Pricer(tiny).price(policy).flops


@pytest.fixture(scope="module")
def tiny() -> Any:
    return tiny_sd()


@pytest.fixture(scope="module")
def shipped() -> Any:
    pipe = demo_pipeline()
    pipe.set_progress_bar_config(disable=True)
    return pipe


# To explain failures, hypothesis traces every line, which makes this many times slower.
@settings(max_examples=30, deadline=None, phases=set(Phase) - {Phase.explain})
@given(seed=st.integers(0, 2**32), batch=st.integers(1, 3))
def test_counted_equals_predicted_on_a_tiny_model(tiny: Any, seed: int, batch: int) -> None:
    # A count takes long: fewer than the pipeline's fifty steps are enough for every knob.
    policy = space_for(tiny).sample(seed, steps=12)
    assert counted(tiny, policy, ["a"] * batch) == Pricer(tiny).price(policy, batch).flops


@pytest.mark.parametrize("seed", range(10))
def test_counted_equals_predicted_for_what_a_search_proposes(shipped: Any, seed: int) -> None:
    policy = space_for(shipped).sample(seed)
    assert counted(shipped, policy, ["fluent red apple"]) == Pricer(shipped).price(policy).flops


@pytest.mark.parametrize("name", DEMO_NAMES)
@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=[pytest.mark.exhaustive] if part else []) for part in range(5)]
)
def test_counted_equals_predicted_on_the_shipped_models(name: str, part: int) -> None:
    """Two hundred policies of every lever, forty by default."""
    pipe = demo_pipeline(name)
    pipe.set_progress_bar_config(disable=True)
    pricer = Pricer(pipe)
    for policy in islice(random_policies(pricer, range(2, 7)), 40 * part, 40 * (part + 1)):
        assert counted(pipe, policy, ["fluent red apple"]) == pricer.price(policy).flops, policy.id


def test_counted_equals_predicted_at_another_size(tiny: Any) -> None:
    policy = space_for(tiny).sample(3)
    assert counted(tiny, policy, ["a"], height=64, width=32) == Pricer(tiny, 64, 32).price(policy).flops


def test_counted_equals_predicted_without_guidance(tiny: Any) -> None:
    policy = space_for(tiny).sample(5)
    expected = Pricer(tiny, guided=False).price(policy).flops
    assert counted(tiny, policy, ["a"], guidance_scale=1.0) == expected


def test_the_full_run_costs_one(tiny: Any) -> None:
    assert Pricer(tiny).price(full_policy(tiny)).relative == 1.0


def test_costs_are_relative_to_the_policys_own_full_run(tiny: Any) -> None:
    policy = full_policy(tiny, 10)
    assert Pricer(tiny).price(policy).relative == 1.0
    assert Pricer(tiny, full_steps=20).price(Policy(steps=10)).relative == 0.5


def test_half_precision_halves_the_kept_bytes(tiny: Any) -> None:
    policy = next(p for p in map(space_for(tiny).sample, range(100)) if p.cache)
    half = tiny_sd()
    half.unet.to(torch.bfloat16)
    assert Pricer(half).price(policy).cache_bytes * 2 == Pricer(tiny).price(policy).cache_bytes


def test_one_forward_of_the_shipped_model_is_as_small_as_promised(shipped: Any) -> None:
    forward = Pricer(shipped).full_flops(1) / 2
    assert forward <= 0.4e9
    assert demo_assets().full_steps == 20
