from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.cost import Pricer
from autotune.pipelines.families import family_of
from autotune.plan import Action, compile_plan
from autotune.plan.structure import Structure, StructureBuilder
from autotune.policy import CacheRule, Guidance
from search_spaces import TransformerSpace, UNetSpace, space_for
from search_spaces.denoiser import DenoiserSpace
from search_spaces.transformer import patterns, repeated_blocks
from tests.support.builders import FAMILIES


def four_blocks() -> Structure:
    """Four blocks of self-attention, cross-attention and feed-forward on one stream, then a chain of two."""
    builder = StructureBuilder()
    stream: list[int] = []

    def block(name: str, *layers: tuple[str, str]) -> None:
        parts: list[int] = []
        for attribute, kind in layers:
            parts.append(builder.unit(f"{name}.{attribute}", kind, [*stream, *parts]))
        stream[:] = [builder.unit(name, "block", [*stream, *parts], inputs=stream[:], streams=("hidden_states",))]

    for index in range(4):
        block(f"blocks.{index}", ("attn1", "self-attention"), ("attn2", "cross-attention"), ("ff", "feed-forward"))
    for index in range(2):
        block(f"single.{index}", ("attn", "joint-attention"), ("ff", "feed-forward"))
    builder.unit("out", "denoiser", stream)
    return builder.build(size_multiple=2)


STRUCTURE = four_blocks()
SPACE = TransformerSpace(STRUCTURE, 16, 16, 20)
PLAIN = SPACE.recipes[0].values
VALUES = st.fixed_dictionaries({knob.name: st.integers(knob.low, knob.high) for knob in SPACE.knobs})


def values(**changed: int) -> dict[str, int]:
    return {**PLAIN, **changed}


@given(VALUES, st.integers(1, 40))
def test_every_setting_is_a_valid_policy(values: Mapping[str, int], steps: int) -> None:
    policy = SPACE.policy(values, steps)
    assert len(compile_plan(policy, STRUCTURE, 16, 16).steps) == policy.steps == steps


@settings(max_examples=50)
@given(VALUES, st.integers(1, 40))
def test_each_notch_towards_costlier_ends_at_plain_steps(values: Mapping[str, int], steps: int) -> None:
    """What proposals rely on to repair a setting that is too cheap."""
    bounds = {knob.name: (knob.low, knob.high) for knob in SPACE.knobs}
    changed = dict(values)
    for name, direction in SPACE.repair_order:
        changed[name] = bounds[name][direction > 0]
    assert SPACE.policy(changed, steps) == SPACE.policy(PLAIN, steps)


@pytest.mark.parametrize(
    "same",
    [
        values(blocks=4, block_interval=1),
        values(blocks=0, block_interval=6, first_block=3),
        values(layer_interval=1, forecast=2, warm_up=5, cool_down=3),
        values(late_interval=4, late_start=8),
        values(blocks=4, block_interval=1, late_interval=4),
        values(switch=0, scale=1, middle=6),
        values(switch=12, handoff=1),
        values(scale=1, switch=0, handoff=1),
        values(gate=1),
    ],
)
def test_knobs_without_effect_leave_the_plain_policy(same: dict[str, int]) -> None:
    assert SPACE.policy(same, 20) == SPACE.policy(PLAIN, 20)


def test_knobs_do_what_they_say() -> None:
    knobs = values(
        scale=SPACE.scales.index(Fraction(1, 2)), switch=5, handoff=1, first_block=2, blocks=3,
        block_interval=2, layer_interval=3, forecast=1, cross_interval=4, warm_up=1, guidance_stop=15,
    )  # fmt: skip
    policy = SPACE.policy(knobs, 20)
    assert (policy.resolution[0].scale, policy.resolution[0].until_step) == (0.5, 5)
    assert policy.resolution[0].handoff == "noise_matched"
    assert policy.guidance == Guidance(stop_step=15)
    blocks, layers, cross = policy.cache
    assert blocks == CacheRule(
        units=("blocks.2-3", "single.0"), mode="residual", compute_steps=(0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19)
    )
    assert (layers.units, layers.mode, layers.order) == (("**.attn1", "**.ff", "**.attn"), "forecast", 1)
    assert layers.compute_steps == (0, 1, 4, 5, 8, 11, 14, 17)
    assert (cross.units, cross.mode, cross.compute_steps) == (("**.attn2",), "reuse", (0, 1, 5, 9, 13, 17))


def test_all_that_is_reused_has_the_same_end_and_the_same_second_window() -> None:
    knobs = values(
        blocks=2, block_interval=4, layer_interval=2, cross_interval=1, cool_down=2, late_interval=3, late_start=10
    )
    blocks, layers = SPACE.policy(knobs, 20).cache
    assert blocks.compute_steps == (0, 4, 8, 11, 14, 17, 18, 19)
    assert layers.compute_steps == (0, 2, 4, 6, 8, 11, 14, 17, 18, 19)


def test_own_recipes_that_cache_compute_the_last_step_and_published_ones_as_published() -> None:
    policies = {recipe.name: SPACE.policy(recipe.values, 12) for recipe in SPACE.recipes}
    last = {name: 11 in policy.cache[0].compute_steps for name, policy in policies.items() if policy.cache}
    assert last == {
        "FORA, interval 2": False,
        "FORA, interval 3": False,
        "FORA, interval 3, last step computed": True,
        "TaylorSeer, interval 3": True,  # 2, 5, 8, 11 after the warm-up
        "TaylorSeer, interval 3, last step computed": True,
        "PAB-like": True,
        "all but the last quarter of the blocks every third step": False,
        "back blocks every second step": True,
    }


def test_a_gate_takes_cross_attention_over() -> None:
    policy = SPACE.policy(values(gate=1, guidance_stop=8, cross_interval=3, layer_interval=2), 20)
    assert policy.guidance == Guidance(stop_step=8, after="cross_attention")
    assert [rule.units for rule in policy.cache] == [SPACE.layers]
    plan = compile_plan(policy, STRUCTURE, 16, 16)
    cross = STRUCTURE.of_kind("cross-attention")
    assert all(plan.steps[12].actions[unit] is Action.REUSE for unit in cross)


def test_blocks_beyond_the_last_are_none() -> None:
    assert SPACE.policy(values(first_block=5, blocks=6, block_interval=2), 4).cache[0].units == ("single.1",)


def test_short_chains_and_ambiguous_names_are_left_alone() -> None:
    builder = StructureBuilder()
    refiner = builder.unit("refiner.0", "block", (), streams=("x",))
    first = builder.unit("layers.0.proj", "feed-forward", (refiner,))
    other = builder.unit("layers.0.norm.proj", "normalisation", (first,))
    block = builder.unit("layers.0", "block", (other,), inputs=(refiner,), streams=("x",))
    last = builder.unit("layers.1", "block", (block,), inputs=(block,), streams=("x",))
    structure = builder.build(size_multiple=1, root=last)
    assert repeated_blocks(structure) == ("layers.0", "layers.1")
    assert patterns(structure, ["feed-forward"]) == ("layers.0.proj",)
    assert patterns(structure, ["cross-attention"]) == ()


def test_without_guidance_nothing_of_it_is_searched() -> None:
    space = TransformerSpace(STRUCTURE, 16, 16, 20, guided=False)
    assert all(space.sample(seed).guidance is None for seed in range(50))
    for recipe in space.recipes:
        space.policy(recipe.values, 20)


def test_samples_differ_and_repeat() -> None:
    keys = [SPACE.sample(seed).key for seed in range(100)]
    assert len(set(keys)) > 75
    assert keys == [SPACE.sample(seed).key for seed in range(100)]


def test_trials_stand_for_policies() -> None:
    trial = optuna.trial.FixedTrial(dict(PLAIN))
    assert SPACE.from_trial(trial) == SPACE.policy(PLAIN, 20)


@pytest.mark.parametrize("name", [name for name, family in FAMILIES.items() if not family.frames and name != "generic"])
def test_every_family_has_a_space_whose_policies_can_be_priced(name: str) -> None:
    pipe: Any = FAMILIES[name].make()
    guided = family_of(pipe).guided
    space = space_for(pipe, steps=8, guided=guided)
    assert isinstance(space, UNetSpace if hasattr(pipe, "unet") else TransformerSpace)
    pricer = Pricer(pipe, full_steps=8, guided=guided)
    shares = {recipe.name: pricer.price(space.policy(recipe.values, 8)).relative for recipe in space.recipes}
    fewer_steps = [name for name in shares if name.startswith("fewer steps")]
    assert isinstance(space, DenoiserSpace)
    assert len(fewer_steps) == len(space.solvers) + any(solver.skews for solver in space.solvers)
    assert all((share == 1) == (name in fewer_steps) for name, share in shares.items())
    assert all(0 < pricer.price(space.sample(seed)).relative <= 1 for seed in range(10))
