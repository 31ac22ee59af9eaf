from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.core.errors import InputError
from autotune.plan import Action, accepted_scales, compile_plan
from autotune.plan.structure import Structure, StructureBuilder
from autotune.policy import Guidance
from search_spaces import Knob, SearchSpace, UNetSpace
from search_spaces.unet import reusable_outputs


def three_level_unet() -> Structure:
    """Three levels of one layer down and two up, as the shipped model has; attention in the middle level."""
    builder = StructureBuilder()
    current = builder.unit("conv_in", "convolution", ())
    skips = [current]
    for level in range(3):
        name = f"down_blocks.{level}"
        current = builder.unit(f"{name}.resnets.0", "resnet", (current,))
        units = [current]
        if level == 1:
            current = builder.unit(f"{name}.attentions.0", "attention", (current,))
            units.append(current)
        outputs = [current]
        if level < 2:
            current = builder.unit(f"{name}.downsamplers.0", "downsampler", (current,))
            units.append(current)
            outputs.append(current)
        skips += outputs
        builder.block(name, units, outputs)
    current = builder.unit("mid_block.resnets.0", "resnet", (current,))
    builder.block("mid_block", [current])
    for level in range(3):
        name = f"up_blocks.{level}"
        units = []
        for layer in range(2):
            current = builder.unit(f"{name}.resnets.{layer}", "resnet", (current, skips.pop()))
            units.append(current)
            if level == 1:
                current = builder.unit(f"{name}.attentions.{layer}", "attention", (current,))
                units.append(current)
        if level < 2:
            current = builder.unit(f"{name}.upsamplers.0", "upsampler", (current,))
            units.append(current)
        builder.block(name, units)
    builder.unit("conv_out", "convolution", (current,))
    return builder.build(size_multiple=4)


STRUCTURE = three_level_unet()
SPACE = UNetSpace(STRUCTURE, 16, 16, 20)
PLAIN = SPACE.recipes[0].values
VALUES = st.fixed_dictionaries({knob.name: st.integers(knob.low, knob.high) for knob in SPACE.knobs})
STEPS = st.integers(1, 40)


def values(**changed: int) -> dict[str, int]:
    return {**PLAIN, **changed}


def test_scales_are_those_the_latents_accept() -> None:
    assert SPACE.scales == (Fraction(1, 4), Fraction(1, 2), Fraction(3, 4), Fraction(1))
    assert accepted_scales(24, 16, 8) == (Fraction(1),)
    assert accepted_scales(32, 16, 8) == (Fraction(1, 2), Fraction(1))
    with pytest.raises(InputError, match="multiples of 8"):
        accepted_scales(20, 16, 8)


def test_reusable_outputs_leave_ever_less_to_compute() -> None:
    names = reusable_outputs(STRUCTURE)
    assert names == ("up_blocks.0", "up_blocks.1.attentions.0", "up_blocks.1", "up_blocks.2.resnets.0")
    needed = [STRUCTURE.needed(dict.fromkeys(STRUCTURE.resolve([name]), ())) for name in names]
    assert all(after < before for before, after in zip(needed, needed[1:], strict=False))


@given(VALUES, STEPS)
def test_every_setting_is_a_valid_policy(values: Mapping[str, int], steps: int) -> None:
    policy = SPACE.policy(values, steps)
    plan = compile_plan(policy, STRUCTURE, 16, 16)
    assert policy.steps == steps == len(plan.steps)


@settings(max_examples=300)
@given(VALUES, VALUES, st.integers(1, 8))
def test_equal_plans_are_equal_policies(one: Mapping[str, int], other: Mapping[str, int], steps: int) -> None:
    # Half of the second setting is the first one's: otherwise equal plans would hardly ever be drawn.
    mixed = {name: other[name] if index % 2 else one[name] for index, name in enumerate(other)}
    policies = SPACE.policy(one, steps), SPACE.policy(mixed, steps)
    plans = [compile_plan(policy, STRUCTURE, 16, 16).steps for policy in policies]
    assert (plans[0] == plans[1]) == (policies[0] == policies[1])


@pytest.mark.parametrize(
    "same",
    [
        values(interval=1, depth=4),
        values(interval=6, depth=0),
        values(interval=6, depth=0, warm_up=5),
        values(interval=6, depth=0, cool_down=3),
        values(interval=1, depth=4, late_interval=6, second_depth=2, second_interval=4),
        values(late_interval=5, late_start=8, second_depth=3, second_interval=3),
        values(switch=12),
        values(scale=0, switch=0),
        values(scale=0, switch=0, middle=8),
        values(switch=12, middle=8),
    ],
)
def test_knobs_without_effect_leave_the_plain_policy(same: dict[str, int]) -> None:
    assert SPACE.policy(same, 20) == SPACE.policy(PLAIN, 20)
    assert SPACE.policy(PLAIN, 20).id == "s20"


def test_knobs_do_what_they_say() -> None:
    knobs = values(scale=1, switch=9, depth=2, interval=3, warm_up=2, guidance_start=3, guidance_stop=15)
    policy = SPACE.policy(knobs, 20)
    assert policy.resolution[0].scale == 0.5
    assert policy.resolution[0].until_step == 9
    assert policy.guidance == Guidance(start_step=3, stop_step=15)
    assert policy.cache[0].units == ("up_blocks.1.attentions.0",)
    assert policy.cache[0].compute_steps == (0, 1, 2, 3, 5, 8, 9, 12, 15, 18)


CACHES = values(depth=3, interval=2)


@pytest.mark.parametrize(
    "same",
    [
        CACHES | {"second_depth": 2},
        CACHES | {"second_interval": 4},
        CACHES | {"late_interval": 2, "late_start": 8},
        CACHES | {"late_start": 16},
        CACHES | {"late_interval": 6, "late_start": 20},
        CACHES | {"middle": 5},
    ],
)
def test_knobs_without_effect_leave_the_policy_that_caches(same: dict[str, int]) -> None:
    assert SPACE.policy(same, 20) == SPACE.policy(CACHES, 20)


@pytest.mark.parametrize(("depth", "second"), [(1, 1), (2, 2), (2, 3), (3, 3)])
def test_a_second_output_that_is_no_deeper_is_none(depth: int, second: int) -> None:
    caches = values(depth=depth, interval=2)
    assert SPACE.policy(caches | {"second_depth": second, "second_interval": 2}, 20) == SPACE.policy(caches, 20)


def test_the_last_steps_compute() -> None:
    (rule,) = SPACE.policy(values(depth=3, interval=4, cool_down=2), 20).cache
    assert rule.compute_steps == (0, 4, 8, 12, 16, 18, 19)


def test_another_interval_later_on() -> None:
    (rule,) = SPACE.policy(values(depth=3, interval=2, late_interval=5, late_start=10), 20).cache
    assert rule.compute_steps == (0, 2, 4, 6, 8, 13, 18)


def test_a_deeper_output_is_computed_in_some_steps_of_the_first() -> None:
    knobs = values(depth=4, interval=2, second_depth=2, second_interval=3, cool_down=1, forecast=1)
    outer, deeper = SPACE.policy(knobs, 16).cache
    assert (outer.units, deeper.units) == (("up_blocks.2.resnets.0",), ("up_blocks.1.attentions.0",))
    assert outer.compute_steps == (0, 2, 4, 6, 8, 10, 12, 14, 15)
    assert deeper.compute_steps == (0, 6, 12, 15)
    assert (outer.order, deeper.order) == (1, 1)
    steps = compile_plan(SPACE.policy(knobs, 16), STRUCTURE, 16, 16).steps
    (first,), (second,) = (STRUCTURE.resolve(rule.units) for rule in (outer, deeper))
    assert (steps[6].actions[first], steps[6].actions[second]) == (Action.COMPUTE, Action.COMPUTE)
    assert (steps[8].actions[first], steps[8].actions[second]) == (Action.COMPUTE, Action.FORECAST)
    assert (steps[9].actions[first], steps[9].actions[second]) == (Action.FORECAST, Action.NOT_NEEDED)


@given(VALUES, STEPS)
def test_a_second_depth_saves_where_it_changes_anything(values: Mapping[str, int], steps: int) -> None:
    with_it, without = SPACE.policy(values, steps), SPACE.policy({**values, "second_depth": 0}, steps)
    computed = [
        sum(
            action is Action.COMPUTE
            for step in compile_plan(policy, STRUCTURE, 16, 16).steps
            for action in step.actions
        )
        for policy in (with_it, without)
    ]
    assert computed[0] < computed[1] if with_it != without else computed[0] == computed[1]
    assert len(with_it.cache) == len(without.cache) + (with_it != without)


def test_a_size_halfway_follows_the_first() -> None:
    policy = SPACE.policy(values(scale=1, switch=6, middle=5, handoff=1), 20)
    assert [(stage.scale, stage.until_step) for stage in policy.resolution] == [(0.5, 6), (0.75, 11)]
    assert {stage.handoff for stage in policy.resolution} == {"noise_matched"}
    assert [SPACE.middle(index) for index in range(4)] == [Fraction(1, 2), Fraction(3, 4), None, None]
    without = SPACE.policy(values(scale=2, switch=6), 20)
    assert SPACE.policy(values(scale=2, switch=6, middle=5), 20) == without, "nothing lies between"


def test_sizes_that_are_asked_for_include_those_halfway() -> None:
    narrow = SPACE.within({"scale": (1, 1)})
    assert narrow.asked_scales == (Fraction(1, 2), Fraction(3, 4), Fraction(1))
    assert narrow.within({"middle": (0, 0)}).asked_scales == (Fraction(1, 2), Fraction(1))


@pytest.mark.parametrize(
    ("interval", "asked", "steps", "order"),
    [(3, 0, 12, None), (3, 1, 12, 1), (3, 2, 12, 2), (3, 2, 6, 1), (6, 2, 6, None)],
)
def test_a_forecast_has_the_order_its_computed_steps_allow(
    interval: int, asked: int, steps: int, order: int | None
) -> None:
    (rule,) = SPACE.policy(values(depth=3, interval=interval, forecast=asked), steps).cache
    assert rule.order == order
    assert rule.mode == ("forecast" if order else "reuse")


@pytest.mark.parametrize(
    ("start", "stop", "steps", "guidance"),
    [
        (0, 20, 20, None),
        (4, 15, 20, Guidance(start_step=4, stop_step=15)),
        (10, 5, 20, Guidance(start_step=4, stop_step=5)),
        (10, 1, 20, Guidance(start_step=0, stop_step=1)),
        (10, 20, 1, None),
    ],
)
def test_guidance_always_runs_somewhere(start: int, stop: int, steps: int, guidance: Guidance | None) -> None:
    assert SPACE.policy(values(guidance_start=start, guidance_stop=stop), steps).guidance == guidance


@given(VALUES, STEPS)
def test_a_new_size_computes_everything_at_a_listed_step(values: Mapping[str, int], steps: int) -> None:
    policy = SPACE.policy(values, steps)
    for stage in policy.resolution:
        step = compile_plan(policy, STRUCTURE, 16, 16).steps[stage.until_step]
        assert set(step.actions) == {Action.COMPUTE}
        assert all(stage.until_step in rule.compute_steps for rule in policy.cache)


def test_samples_repeat_with_their_seed_and_differ_between_seeds() -> None:
    assert SPACE.sample(3) == SPACE.sample(3)
    assert SPACE.sample(3).steps == 20
    assert SPACE.sample(3, steps=7).steps == 7
    assert len({SPACE.sample(seed).key for seed in range(50)}) > 40


def test_a_trial_gives_the_policy_of_its_parameters() -> None:
    wanted = values(scale=1, switch=10, depth=3, interval=2)
    assert SPACE.from_trial(optuna.trial.FixedTrial(wanted)) == SPACE.policy(wanted, 20)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"depth": 9}, "knob 'depth' is 9; give a value from 0 to 4"),
        ({"dept": 1}, "no knob 'dept'; did you mean 'depth'"),
    ],
)
def test_wrong_values_are_named(changed: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SPACE.policy(values(**changed), 20)


def test_a_missing_value_is_named() -> None:
    incomplete = {name: value for name, value in PLAIN.items() if name != "scale"}
    with pytest.raises(InputError, match="knob 'scale' has no value"):
        SPACE.policy(incomplete, 20)


def test_a_knob_has_a_range() -> None:
    with pytest.raises(InputError, match="low 2 exceeds high 1"):
        Knob("depth", 2, 1, "")


def test_recipes_are_settings_of_the_space() -> None:
    for recipe in SPACE.recipes:
        SPACE.policy(recipe.values, 20)
    assert SPACE.recipes[0].name == "fewer steps"
    deep_cache = next(recipe for recipe in SPACE.recipes if recipe.name == "DeepCache, interval 3")
    policy = SPACE.policy(deep_cache.values, 9)
    assert policy.id == "s9-up_blocks.2.resnets.0i3"
    assert policy.cache[0].compute_steps == (0, 3, 6)


def test_the_costlier_direction_ends_at_the_plain_policy() -> None:
    bounds = {knob.name: (knob.low, knob.high) for knob in SPACE.knobs}
    dearest = values(warm_up=3) | {name: bounds[name][direction > 0] for name, direction in SPACE.repair_order}
    assert SPACE.policy(dearest, 20) == SPACE.policy(PLAIN, 20)


def test_what_the_pipeline_cannot_do_is_no_choice() -> None:
    fixed: SearchSpace = UNetSpace(STRUCTURE, 16, 16, 20, guided=False)
    samples = [fixed.sample(seed) for seed in range(30)]
    assert all(policy.guidance is None for policy in samples)
    assert any(policy.cache for policy in samples)
