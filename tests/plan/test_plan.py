"""Plans: what is forced, what falls away, what is kept and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.core.errors import PolicyError
from autotune.plan import Action, Plan, compile_plan, latent_size
from autotune.plan.structure import Structure, StructureBuilder
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from tests.policy.test_policy import policies


def small_unet() -> Structure:
    """conv_in -> down -> mid -> up (reads the skip from conv_in) -> conv_out."""
    b = StructureBuilder()
    conv_in = b.unit("conv_in", "convolution", ())
    down = b.unit("down_blocks.0.resnets.0", "resnet", (conv_in,))
    b.block("down_blocks.0", [down], [down])
    mid = b.unit("mid_block.resnets.0", "resnet", (down,))
    b.block("mid_block", [mid])
    deep = b.unit("up_blocks.0.resnets.0", "resnet", (mid, down))
    b.block("up_blocks.0", [deep])
    shallow = b.unit("up_blocks.1.resnets.0", "resnet", (deep, conv_in))
    b.block("up_blocks.1", [shallow])
    b.unit("conv_out", "convolution", (shallow,))
    return b.build(size_multiple=2)


STRUCTURE = small_unet()
NAMES = [unit.name for unit in STRUCTURE.units]


def computed(plan: Plan, step: int) -> set[str]:
    return {NAMES[i] for i, a in enumerate(plan.steps[step].actions) if a is Action.COMPUTE}


def test_reusing_a_block_makes_what_feeds_only_it_fall_away() -> None:
    policy = Policy(steps=2, cache=(CacheRule(units=("up_blocks.0",), compute_steps=(0,)),))
    plan = compile_plan(policy, STRUCTURE, 8, 8)
    assert computed(plan, 0) == set(NAMES)
    assert computed(plan, 1) == {"conv_in", "up_blocks.1.resnets.0", "conv_out"}
    assert plan.steps[1].actions[NAMES.index("mid_block.resnets.0")] is Action.NOT_NEEDED


def test_a_unit_with_another_reader_is_still_computed() -> None:
    policy = Policy(steps=2, cache=(CacheRule(units=("mid_block",), compute_steps=(0,)),))
    assert "down_blocks.0.resnets.0" in computed(compile_plan(policy, STRUCTURE, 8, 8), 1)


def test_everything_computes_after_a_change_of_resolution() -> None:
    policy = Policy(
        steps=4,
        resolution=(ResolutionStage(scale=0.5, until_step=2),),
        cache=(CacheRule(units=("up_blocks.0",), compute_steps=(0,)),),
    )
    plan = compile_plan(policy, STRUCTURE, 8, 8)
    assert [len(computed(plan, i)) for i in range(4)] == [6, 3, 6, 3]
    assert [(s.height, s.width, s.handoff) for s in plan.steps] == [
        (4, 4, None),
        (4, 4, "renoise"),
        (8, 8, None),
        (8, 8, None),
    ]


def test_everything_computes_where_guidance_starts_but_not_where_it_stops() -> None:
    rule = CacheRule(units=("up_blocks.0",), compute_steps=(0,))
    policy = Policy(steps=4, guidance=Guidance(start_step=1, stop_step=2), cache=(rule,))
    plan = compile_plan(policy, STRUCTURE, 8, 8)
    assert [s.branches for s in plan.steps] == [1, 2, 1, 1]
    assert [len(computed(plan, i)) for i in range(4)] == [6, 6, 3, 3]


def test_an_unguided_call_has_one_branch_throughout() -> None:
    plan = compile_plan(Policy(steps=3, guidance=Guidance(stop_step=2)), STRUCTURE, 8, 8, guided=False)
    assert [s.branches for s in plan.steps] == [1, 1, 1]


def rated(*compute_steps: int, steps: int = 6, **fields: Any) -> Policy:
    """Guidance throughout, both branches computed in ``compute_steps``."""
    return Policy(version=3, steps=steps, guidance=Guidance(stop_step=steps, compute_steps=compute_steps), **fields)


def test_a_step_that_reuses_the_difference_has_one_branch() -> None:
    plan = compile_plan(rated(0, 3), STRUCTURE, 8, 8)
    assert [s.branches for s in plan.steps] == [2, 1, 1, 2, 1, 1]
    assert [plan.reuses_difference(at) for at in range(7)] == [False, True, True, False, True, True, False]


def test_an_unguided_call_reuses_no_difference() -> None:
    plan, plain = (compile_plan(each, STRUCTURE, 8, 8, guided=False) for each in (rated(0, 3), Policy(steps=6)))
    assert not any(plan.reuses_difference(at) for at in range(6))
    assert plan.digest == plain.digest


def test_how_strong_guidance_is_is_part_of_what_a_plan_does_where_it_runs() -> None:
    def multiplied(factor: float, *, guided: bool = True) -> Plan:
        guidance = Guidance(start_step=1, stop_step=3, factor=factor)
        return compile_plan(Policy(version=4, steps=4, guidance=guidance), STRUCTURE, 8, 8, guided=guided)

    plan = multiplied(1.5)
    assert [plan.factor(at) for at in range(4)] == [1, 1.5, 1.5, 1]
    assert len({plan.digest, multiplied(1.25).digest, multiplied(1).digest}) == 3
    assert multiplied(1.5, guided=False).digest == multiplied(1, guided=False).digest
    assert [multiplied(1.5, guided=False).factor(at) for at in range(4)] == [1, 1, 1, 1]


def test_both_branches_are_computed_in_the_first_step_of_a_size_and_of_a_call() -> None:
    stages = (ResolutionStage(scale=0.5, until_step=2),)
    plan = compile_plan(rated(0, 5, resolution=stages), STRUCTURE, 8, 8)
    assert [s.branches for s in plan.steps] == [2, 1, 2, 1, 1, 2]
    assert [s.branches for s in compile_plan(rated(0, 5), STRUCTURE, 8, 8, start=2).steps] == [2, 1, 1, 2]


def test_the_calls_of_a_step_compute_both_branches_together() -> None:
    plan = compile_plan(rated(0, 3, steps=5), STRUCTURE, 8, 8, calls=(2, 2, 2, 2, 1), start=2)
    assert [(s.step, s.branches) for s in plan.steps] == [(1, 2), (1, 2), (2, 1), (2, 1), (3, 2), (3, 2), (4, 1)]


def test_with_both_branches_units_take_what_they_computed_with_both() -> None:
    """Not what they computed since for the conditional one alone; that takes the latest of either."""
    rule = CacheRule(units=("up_blocks.0",), compute_steps=(0, 1, 4))
    plan = compile_plan(rated(0, 3, 4, cache=(rule,)), STRUCTURE, 8, 8)
    unit = NAMES.index("up_blocks.0.resnets.0")
    assert [s.branches for s in plan.steps] == [2, 1, 1, 2, 2, 1]
    assert [dict(s.sources).get(unit) for s in plan.steps] == [None, None, ((1, 1.0),), ((0, 1.0),), None, ((4, 1.0),)]
    assert [s.fresh for s in plan.steps] == [True, False, False, False, False, False]
    assert [sorted(s.drop) for s in plan.steps] == [[], [], [(unit, 1)], [(unit, 0)], [], [(unit, 4)]]


@given(policies(everything=True), st.booleans(), st.data())
def test_every_difference_has_been_computed_at_its_size(policy: Policy, guided: bool, data: st.DataObject) -> None:
    policy = policy.model_copy(update={"cache": (), "resolution": policy.resolution[:1]})
    if any(stage.scale == 0.75 for stage in policy.resolution):
        policy = policy.model_copy(update={"resolution": ()})
    calls = data.draw(st.lists(st.integers(1, 2), min_size=policy.steps, max_size=policy.steps))
    without_gate = None if policy.guidance is None else policy.guidance.model_copy(update={"after": "nothing"})
    policy = policy.model_copy(update={"guidance": without_gate})
    start = data.draw(st.integers(0, sum(calls) - 1))
    plan = compile_plan(policy, STRUCTURE, 8, 8, guided=guided, calls=calls, start=start)
    held: tuple[int, int] | None = None
    for position, step in enumerate(plan.steps):
        if step.branches == 2:
            held = step.height, step.width
        assert not plan.reuses_difference(position) or held == (step.height, step.width)
        in_step = {other.branches for other in plan.steps if other.step == step.step}
        assert in_step == {step.branches}


def test_outputs_are_kept_from_their_last_computation_to_their_last_reading() -> None:
    policy = Policy(steps=6, cache=(CacheRule(units=("up_blocks.0",), compute_steps=(0, 3, 5)),))
    plan = compile_plan(policy, STRUCTURE, 8, 8)
    unit = NAMES.index("up_blocks.0.resnets.0")
    assert [unit in s.keep for s in plan.steps] == [True, False, False, True, False, False]
    assert [sorted(s.drop) for s in plan.steps] == [[], [], [(unit, 0)], [], [(unit, 3)], []]


@pytest.mark.parametrize(
    ("order", "weights"),
    [
        (1, {1: {0: 1.0}, 3: {0: -0.5, 2: 1.5}, 5: {2: -0.5, 4: 1.5}, 6: {2: -1.0, 4: 2.0}}),
        (2, {1: {0: 1.0}, 3: {0: -0.5, 2: 1.5}, 5: {0: 0.375, 2: -1.25, 4: 1.875}, 6: {0: 1.0, 2: -3.0, 4: 3.0}}),
    ],
)
def test_forecasts_extrapolate_what_was_computed(order: int, weights: dict[int, dict[int, float]]) -> None:
    rule = CacheRule(units=("up_blocks.0",), mode="forecast", order=order, compute_steps=(0, 2, 4))
    plan = compile_plan(Policy(steps=7, cache=(rule,)), STRUCTURE, 8, 8)
    unit = NAMES.index("up_blocks.0.resnets.0")
    for step, expected in weights.items():
        assert dict(plan.steps[step].sources[unit]) == pytest.approx(expected)
        assert plan.steps[step].actions[unit] is (Action.REUSE if len(expected) == 1 else Action.FORECAST)


def test_forecasts_begin_anew_at_another_resolution() -> None:
    rule = CacheRule(units=("up_blocks.0",), mode="forecast", order=1, compute_steps=(0, 1))
    policy = Policy(steps=4, resolution=(ResolutionStage(scale=0.5, until_step=2),), cache=(rule,))
    plan = compile_plan(policy, STRUCTURE, 8, 8)
    assert plan.steps[3].sources == {NAMES.index("up_blocks.0.resnets.0"): ((2, 1.0),)}


UP = NAMES.index("up_blocks.0.resnets.0")


def weighted(compute_steps: tuple[int, ...], weights: tuple[tuple[float, ...], ...], **fields: Any) -> Policy:
    rule = CacheRule(units=("up_blocks.0",), mode="forecast", compute_steps=compute_steps, weights=weights)
    return Policy(version=3, steps=len(compute_steps) + len(weights), cache=(rule, *fields.pop("cache", ())), **fields)


def test_weights_are_of_the_last_computed_results_the_newest_first() -> None:
    policy = weighted((0, 2, 4), ((0.9,), (1.5, -0.25), (1.0,), (2.0, -1.0, 0.5)))
    plan = compile_plan(policy, STRUCTURE, 8, 8)
    assert [plan.steps[step].sources.get(UP) for step in (1, 3, 5, 6)] == [
        ((0, 0.9),),
        ((0, -0.25), (2, 1.5)),
        ((4, 1.0),),
        ((0, 0.5), (2, -1.0), (4, 2.0)),
    ]
    # One result as it is is reuse; one that is weighed is not.
    assert [plan.steps[step].actions[UP] for step in (1, 3, 5, 6)] == [
        Action.FORECAST,
        Action.FORECAST,
        Action.REUSE,
        Action.FORECAST,
    ]
    assert sorted(output for step in plan.steps for output in step.drop) == [(UP, 0), (UP, 2), (UP, 4)]


@given(compute=st.sets(st.integers(1, 11)).map(lambda steps: tuple(sorted({0, *steps}))), order=st.integers(1, 2))
def test_lagranges_numbers_as_weights_make_the_plan_of_an_order(compute: tuple[int, ...], order: int) -> None:
    rule = CacheRule(units=("up_blocks.0",), mode="forecast", order=order, compute_steps=compute)
    plan = compile_plan(Policy(steps=12, cache=(rule,)), STRUCTURE, 8, 8)
    weights = tuple(
        tuple(float(weight) for _, weight in reversed(plan.steps[step].sources[UP])) for step in rule.skipped_steps(12)
    )
    same = compile_plan(weighted(compute, weights), STRUCTURE, 8, 8)
    assert [step.sources for step in same.steps] == [step.sources for step in plan.steps]
    assert [step.kept for step in same.steps] == [step.kept for step in plan.steps]


def test_every_call_of_a_step_weighs_the_same_calls_of_others() -> None:
    policy = weighted((0, 2), ((0.9,), (1.5, -0.25)))
    plan = compile_plan(policy, STRUCTURE, 8, 8, calls=(2, 2, 2, 1))
    assert [step.sources.get(UP) for step in plan.steps] == [
        *(None, None, ((0, 0.9),), ((1, 0.9),)),
        *(None, None, ((0, -0.25), (4, 1.5))),
    ]
    # Where a step has fewer calls than the one that weighs it, its last one stands for those that are not there.
    plan = compile_plan(policy, STRUCTURE, 8, 8, calls=(1, 2, 1, 1))
    assert [step.sources.get(UP) for step in plan.steps] == [
        *(None, ((0, 0.9),), ((0, 0.9),)),
        *(None, ((0, -0.25), (3, 1.5))),
    ]


def test_a_call_that_begins_later_extrapolates_what_it_has() -> None:
    policy = weighted((0, 3, 5), ((0.9,), (0.8,), (1.5, -0.25), (1.25, -0.5)))
    plan = compile_plan(policy, STRUCTURE, 8, 8, start=1)
    sources = [step.sources.get(UP) for step in plan.steps]
    # From step 1 on, in which everything computes: what the weights of 2 and 4 are for is not there.
    assert sources == [None, ((1, 1.0),), None, ((1, -0.5), (3, 1.5)), None, ((3, -0.5), (5, 1.25))]


def test_weights_hold_after_a_change_of_resolution() -> None:
    policy = weighted((0, 2, 3), ((0.9,), (1.5, -0.25)), resolution=(ResolutionStage(scale=0.5, until_step=2),))
    plan = compile_plan(policy, STRUCTURE, 8, 8)
    assert plan.steps[4].sources == {UP: ((2, -0.25), (3, 1.5))}


def test_weights_of_a_result_that_nobody_reads_are_refused() -> None:
    # In step 1 the last block is taken from memory, and nothing before it is computed.
    last = CacheRule(units=("up_blocks.1",), compute_steps=(0, 2, 3))
    policy = weighted((0, 1), ((1.5, -0.25), (1.5, -0.5)), cache=(last,))
    with pytest.raises(PolicyError, match=r"step 2 weigh a result of step 1, .* leave step 1 out of"):
        compile_plan(policy, STRUCTURE, 8, 8)


def test_unknown_units_are_refused_with_the_nearest() -> None:
    policy = Policy(steps=2, cache=(CacheRule(units=("up_block.0",), compute_steps=(0,)),))
    with pytest.raises(PolicyError, match=r"no unit 'up_block\.0'; did you mean 'up_blocks\.0'"):
        compile_plan(policy, STRUCTURE, 8, 8)


@pytest.mark.parametrize(("scale", "size"), [(0.5, 8), (0.75, 12), (0.25, 4), (1 / 3 * 0.75, 4)])
def test_scales_give_whole_latents(scale: float, size: int) -> None:
    assert latent_size(16, scale, 4) == size


@pytest.mark.parametrize("scale", [0.6, 0.1, 0.3, 0.01])
def test_scales_the_denoiser_cannot_take_are_refused_with_those_it_can(scale: float) -> None:
    with pytest.raises(PolicyError, match=r"use one of 0\.25, 0\.5, 0\.75"):
        latent_size(16, scale, 4)


@given(policy=policies(), guided=st.booleans())
def test_every_plan_is_executable(policy: Policy, guided: bool) -> None:
    """What a step reads exists: computed in it, or kept since, from the same size and enough branches."""
    plan = compile_plan(policy, STRUCTURE, 16, 16, guided=guided)
    kept: dict[tuple[int, int], tuple[int, int, int]] = {}
    for step in plan.steps:
        for index, action in enumerate(step.actions):
            if action is Action.COMPUTE:
                for source in STRUCTURE.units[index].reads:
                    assert step.actions[source] is not Action.NOT_NEEDED
                if index in step.keep:
                    kept[index, step.index] = (step.height, step.width, step.branches)
            if action in (Action.REUSE, Action.FORECAST):
                assert sum(weight for _, weight in step.sources[index]) == pytest.approx(1)
                for source, _ in step.sources[index]:
                    height, width, branches = kept[index, source]
                    assert (height, width) == (step.height, step.width)
                    assert branches >= step.branches
        for output in step.drop:
            del kept[output]
    assert not kept, "something is kept that nobody reads"
