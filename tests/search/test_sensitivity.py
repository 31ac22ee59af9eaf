from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import HeunDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st

from autotune.core.errors import InputError, PolicyError
from autotune.evaluation.generation import picture_maker
from autotune.evaluation.inputs import rows_of_prompts
from autotune.policy import Policy
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.search.sensitivity import (
    LEAST_NOISE,
    Sensitivity,
    accumulated_change,
    best_compute_steps,
    even_progress,
    measure_sensitivity,
    progress_of,
)
from tests.search.sensitivities import with_even_strides
from tests.support.builders import FAMILIES

ROWS, SEEDS = rows_of_prompts(["noto apple", "noto dog", "noto hat"]), [1, 2, 3]

# Whole numbers: sums come out the same in any order.
_CHANGES = st.lists(st.integers(0, 20).map(float), min_size=1, max_size=8)


# Schedules


def test_the_accumulated_change_grows_until_the_next_computing_step() -> None:
    assert accumulated_change([0, 1, 2, 3, 4], (0, 3)) == 1 + (1 + 2) + 4
    assert accumulated_change([0, 1, 2, 3, 4], range(5)) == 0


def test_steps_compute_where_most_changes() -> None:
    assert best_compute_steps([0, 1, 1, 9, 1, 1], 2) == (0, 3)
    assert best_compute_steps([0, 1, 1, 9, 1, 1], 3, required=(4,)) == (0, 3, 4)
    # A required first step is nothing new, and of equals the earlier ones are taken.
    assert best_compute_steps([0, 1, 1], 1, required=(0,)) == (0,)
    assert best_compute_steps([0, 0, 0, 0], 2) == (0, 1)


@st.composite
def _cases(draw: st.DrawFn) -> tuple[list[float], list[float], int, set[int]]:
    changes = draw(_CHANGES)
    weights = draw(st.lists(st.integers(0, 5).map(float), min_size=len(changes), max_size=len(changes)))
    required = draw(st.sets(st.integers(0, len(changes) - 1), max_size=3))
    return changes, weights, draw(st.integers(len({0, *required}), len(changes))), required


@given(_cases())
def test_no_other_choice_is_better(case: tuple[list[float], list[float], int, set[int]]) -> None:
    changes, weights, count, required = case
    found = best_compute_steps(changes, count, required, weights)
    assert len(found) == count and {0, *required} <= set(found) and list(found) == sorted(found)
    choices = [(0, *rest) for rest in combinations(range(1, len(changes)), count - 1)]
    least = min(accumulated_change(changes, choice, weights) for choice in choices if required <= set(choice))
    assert accumulated_change(changes, found, weights) == least


@given(_CHANGES)
def test_computing_more_often_never_costs_more(changes: list[float]) -> None:
    costs = [accumulated_change(changes, best_compute_steps(changes, count)) for count in range(1, len(changes) + 1)]
    assert costs == sorted(costs, reverse=True) and costs[-1] == 0


def test_what_is_missed_where_a_step_goes_far_counts_more() -> None:
    assert accumulated_change([0, 1, 2, 3], (0, 2), [9, 2, 9, 3]) == 2 * 1 + 3 * 3
    assert best_compute_steps([0, 1, 1, 1, 1], 2) == (0, 2)
    assert best_compute_steps([0, 1, 1, 1, 1], 2, weights=[1, 1, 1, 1, 9]) == (0, 4)
    with pytest.raises(InputError, match="2 weights for 3 changes"):
        best_compute_steps([0, 1, 2], 1, weights=[1, 1])


@pytest.mark.parametrize(
    ("changes", "count", "required", "words"),
    [
        ([0, 1, 2], 0, (), "count is 0"),
        ([0, 1, 2], 4, (), "to all 3"),
        ([0, 1, 2], 1, (2,), "from the 2 required"),
        ([0, 1, 2], 2, (3,), "do not all exist"),
        ([0, -1, 2], 2, (), "at least 0"),
        ([0, float("nan")], 1, (), "finite"),
        ([[0, 1]], 1, (), "for every step"),
        ([], 1, (), "for every step"),
    ],
)
def test_what_makes_no_schedule_is_refused(changes: Any, count: int, required: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        best_compute_steps(changes, count, required)


# Other numbers of steps


def _sensitivity(*changes: float) -> Sensitivity:
    return with_even_strides((("a",),), np.array([changes], dtype=float))


def test_fewer_steps_change_as_much_in_all() -> None:
    assert np.allclose(_sensitivity(0, 1, 2, 3).at(even_progress(2)).changes, [[0, 3]])
    assert np.allclose(_sensitivity(0, 1, 2, 3).at(even_progress(4)).changes, [[0, 1, 2, 3]])


def test_beyond_the_last_step_it_goes_on_as_there() -> None:
    assert np.allclose(_sensitivity(0, 1, 2, 3).at([0, 0.75, 0.875]).changes, [[0, 6, 1.5]])
    assert np.allclose(_sensitivity(0, 1).at([0, 0.25, 0.5, 0.75]).changes, [[0, 0.5, 0.5, 0.5]])


@given(_CHANGES, st.lists(st.floats(0, 1), min_size=1, max_size=9, unique=True).map(sorted))
def test_another_way_through_the_run_never_changes_negatively(changes: list[float], progress: list[float]) -> None:
    row = _sensitivity(0, *changes).at(progress).changes[0]
    assert row[0] == 0 and (row >= 0).all() and len(row) == len(progress)
    assert row.sum() <= sum(changes) + changes[-1] + 1e-9


@given(st.integers(1, 12), st.integers(1, 12))
def test_other_numbers_of_steps_go_as_far(steps: int, others: int) -> None:
    seen = _sensitivity(*[1.0] * steps)
    assert np.isclose(seen.strides.sum(), seen.noise[0] - LEAST_NOISE)
    assert np.allclose(seen.at(even_progress(others)).strides, seen.strides.sum() / others)


def test_progress_is_a_fraction_of_the_first_timestep() -> None:
    assert np.allclose(progress_of([800, 600, 0]), [0, 0.25, 1])
    assert progress_of([0]).tolist() == [0]


# Measuring


def test_changes_are_those_of_the_outputs(pipe: Any) -> None:
    maker, full = picture_maker(pipe, guidance_scale=3, batch_size=2), Policy(steps=4)
    seen: list[torch.Tensor] = []
    name = pipe.unet.mid_block.resnets[-1]
    handle = name.register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    measured = measure_sensitivity(maker, full, [["mid_block"]], ROWS, SEEDS)
    handle.remove()
    # Four steps of two pictures with both branches of guidance, then of one.
    runs = [torch.cat([a, b]) for a, b in zip(seen[:4], seen[4:], strict=True)]
    expected = [0.0] + [
        float(((now - before).flatten(1).norm(dim=1) / now.flatten(1).norm(dim=1)).mean())
        for before, now in zip(runs, runs[1:], strict=False)
    ]
    assert np.allclose(measured.changes[0], expected, rtol=1e-4)
    assert np.allclose(measured.progress, progress_of(pipe.scheduler.timesteps.tolist()))


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_strides_are_of_the_solvers_noise_levels(name: str) -> None:
    family = FAMILIES[name]
    pipe, (height, width) = family.make(), family.size
    units = [["mid_block"] if hasattr(pipe, "unet") else ["transformer_blocks.0"]]
    maker = picture_maker(pipe, height=height, width=width)
    measured = measure_sensitivity(maker, Policy(steps=4), units, ROWS[:1], SEEDS[:1])
    scheduler = pipe.scheduler
    if name == "sd":
        clean = scheduler.alphas_cumprod[scheduler.timesteps].double()
        signal, noise = clean.sqrt(), (1 - clean).sqrt()
    else:
        noise = scheduler.sigmas[:-1].double()
        signal = (1 - noise).clamp(min=1e-3)
    expected = (noise / signal).log().clamp(LEAST_NOISE, np.log(1000)).numpy()
    assert np.allclose(measured.noise, expected, atol=2e-3)
    ends = np.append(expected, LEAST_NOISE)
    assert np.allclose(measured.strides, ends[:-1] - ends[1:], atol=2e-3) and (measured.strides >= 0).all()


def test_a_row_of_several_units_is_their_mean_and_prefixes_are_left_aside(pipe: Any) -> None:
    prefixes = PrefixCache(2**28)
    maker, full = picture_maker(pipe, batch_size=3, prefixes=prefixes), Policy(steps=3)
    list(maker.pictures(full, ROWS, SEEDS))
    units = [["mid_block"], ["up_blocks.0"], ["mid_block", "up_blocks.0"]]
    one, other, both = measure_sensitivity(maker, full, units, ROWS, SEEDS).changes
    assert np.allclose(both, (one + other) / 2) and (both[1:] > 0).all()
    assert len(prefixes.take_uses()) == 1


def test_of_a_step_with_two_calls_the_first_counts(pipe: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "scheduler", HeunDiscreteScheduler.from_config(pipe.scheduler.config))
    measured = measure_sensitivity(picture_maker(pipe), Policy(steps=3), [["mid_block"]], ROWS, SEEDS)
    assert measured.changes.shape == (1, 3) and (measured.changes[0, 1:] > 0).all()
    assert np.allclose(measured.progress, progress_of(pipe.scheduler.timesteps[::2].tolist()))


def test_branches_with_calls_of_their_own_are_compared_with_themselves() -> None:
    family = FAMILIES["lumina2"]
    pipe = family.make()
    maker = picture_maker(pipe, height=128, width=128, guidance_scale=4.0)
    rows = rows_of_prompts(["red cat on blue chair near tree"])
    measured = measure_sensitivity(maker, Policy(steps=3), [["layers.1"]], rows, [0])
    # Between the branches the output differs far more than between neighbouring steps.
    assert 0 < measured.changes[0, 1:].min()
    seen: list[torch.Tensor] = []
    handle = pipe.transformer.layers[1].register_forward_hook(lambda _, __, output: seen.append(output.clone()))
    list(maker.pictures(Policy(steps=3), rows, [0]))
    handle.remove()
    first = [float((now - before).norm() / now.norm()) for before, now in zip(seen[:2], seen[2:4], strict=True)]
    assert np.isclose(measured.changes[0, 1], np.mean(first), rtol=1e-4)


def test_nothing_stays_on_the_denoiser(pipe: Any) -> None:
    measure_sensitivity(picture_maker(pipe), Policy(steps=2), [["**.attn2"]], ROWS[:1], SEEDS[:1])
    assert not any(module._forward_hooks for module in pipe.unet.modules())


@pytest.mark.parametrize(("units", "rows"), [([], ROWS), ([["mid_block"]], [])])
def test_nothing_to_measure_is_refused(pipe: Any, units: Any, rows: Any) -> None:
    with pytest.raises(InputError, match="at least one"):
        measure_sensitivity(picture_maker(pipe), Policy(steps=2), units, rows, SEEDS[: len(rows)])


def test_units_that_the_denoiser_has_not_are_refused(pipe: Any) -> None:
    with pytest.raises(PolicyError, match="no unit"):
        measure_sensitivity(picture_maker(pipe), Policy(steps=2), [["mid_blok"]], ROWS, SEEDS)
