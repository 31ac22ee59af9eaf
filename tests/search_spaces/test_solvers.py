from __future__ import annotations

from itertools import pairwise
from typing import Any

import diffusers
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotune.policy import Policy
from autotune.runtime import applied
from autotune.runtime.timesteps import count_calls
from search_spaces import space_for
from search_spaces.denoiser import DenoiserSpace
from search_spaces.of_pipeline import solvers_for
from search_spaces.solvers import MOST_SKEW, OWN, Solver, skewed_timesteps
from tests.support.builders import FAMILIES

PICTURES = [name for name, family in FAMILIES.items() if not family.frames and name != "generic"]


@given(st.integers(1, 1000).flatmap(lambda n: st.lists(st.integers(0, 999), min_size=n, max_size=n, unique=True)))
def test_skewed_timesteps_stay_whole_different_and_in_range(drawn: list[int]) -> None:
    timesteps = sorted(drawn, reverse=True)
    for exponent in (0.5, 0.84, 1.0, 1.3, 2.0):
        skewed = skewed_timesteps(timesteps, exponent)
        assert len(skewed) == len(timesteps)
        assert skewed[0] == timesteps[0]
        assert all(after < before for before, after in pairwise(skewed))
        assert skewed[-1] >= 0


def test_a_larger_exponent_means_lower_noise() -> None:
    timesteps = list(range(999, 0, -100))
    low, high = skewed_timesteps(timesteps, 2.0), skewed_timesteps(timesteps, 0.5)
    assert all(a < b < c for a, b, c in zip(low[1:], timesteps[1:], high[1:], strict=True))
    assert skewed_timesteps(timesteps, 1.0) == timesteps


def test_no_skew_says_nothing() -> None:
    solver = Solver(timesteps=lambda steps: list(range(999, 999 - steps, -1)))
    assert solver.fields(0, 10) == {}
    assert OWN.fields(3, 10) == {}


def test_all_timesteps_cannot_be_skewed() -> None:
    assert Solver(timesteps=lambda steps: list(range(steps - 1, -1, -1))).fields(4, 10) == {}


@pytest.mark.parametrize("name", PICTURES)
def test_every_solver_and_skew_of_a_family_makes_its_steps(name: str) -> None:
    pipe = FAMILIES[name].make()
    for solver in solvers_for(pipe, 8):
        for skew in (-MOST_SKEW, -1, 1, MOST_SKEW):
            for steps in (1, 2, 7, 30):
                policy = Policy(steps=steps, **solver.fields(skew, steps))
                assert len(count_calls(pipe.scheduler, policy, pipe)) == steps


def test_a_distilled_model_keeps_its_solver() -> None:
    pipe = FAMILIES["sd"].make()
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    assert [solver.choice for solver in solvers_for(pipe, 8)] == [None]


def test_the_own_solver_is_not_offered_twice() -> None:
    pipe = FAMILIES["sd"].make()
    pipe.scheduler = diffusers.UniPCMultistepScheduler.from_config(pipe.scheduler.config)
    assert [solver.name for solver in solvers_for(pipe, 8)] == ["own solver", "DPMSolver"]


def test_a_solver_of_two_calls_a_step_is_not_skewed() -> None:
    pipe = FAMILIES["sd"].make()
    pipe.scheduler = diffusers.HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    own, *others = solvers_for(pipe, 8)
    assert not own.skews
    assert [solver.name for solver in others] == ["DPMSolver", "UniPC"]


@pytest.mark.parametrize("name", ["sd", "flux"])
def test_a_pipeline_runs_under_another_solver_with_skewed_noise(name: str) -> None:
    family = FAMILIES[name]
    pipe: Any = family.make()
    space = space_for(pipe, steps=6, guided=False)
    assert isinstance(space, DenoiserSpace)
    plain = space.recipes[0].values
    for solver in range(len(space.solvers)):
        for skew in (-2, 2) if space.solvers[solver].skews else (0,):
            policy = space.policy({**plain, "solver": solver, "skew": skew}, 6)
            with applied(pipe, policy):
                assert family.run(pipe, **family.arguments(steps=6)).isfinite().all()
