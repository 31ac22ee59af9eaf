"""Every solver on every pipeline: a whole call works where the solver is offered or accepted, else it is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from autotune.core.errors import PolicyError
from autotune.policy import Policy, SchedulerChoice
from autotune.runtime import applied, apply_policy
from autotune.runtime.apply import scheduler_under
from autotune.runtime.rehearsal import check_runs
from autotune.runtime.schedulers import SOLVERS
from search_spaces.of_pipeline import solvers_for
from search_spaces.solvers import MOST_SKEW, Solver
from tests.support.builders import FAMILIES
from tests.support.watch import traces

STEPS = 3
OFFERED = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")


@cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make()


@cache
def offered(name: str) -> Mapping[str | None, Solver]:
    found = solvers_for(pipeline(name), STEPS)
    return {None if solver.choice is None else solver.choice.name: solver for solver in found}


def run(name: str, **options: Any) -> Tensor:
    """A call that names no steps of its own."""
    arguments = FAMILIES[name].arguments() | options
    del arguments["num_inference_steps"]
    # Some schedulers draw from the global generator, whatever the call is given.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FAMILIES[name].run(pipeline(name), **arguments)


def checked(name: str, policy: Policy) -> None:
    """As the tuner checks a policy before it makes pictures."""
    check_runs(pipeline(name), policy, *FAMILIES[name].size, call=FAMILIES[name].arguments())


@contextmanager
def untouched(name: str) -> Iterator[None]:
    """No call of the denoiser inside, and no trace of it afterwards."""
    pipe, calls = pipeline(name), []
    denoiser, before = getattr(pipe, FAMILIES[name].denoiser), traces(pipe)
    handle = denoiser.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        yield
    finally:
        handle.remove()
    assert not calls
    assert traces(pipe) == before


def assert_refused(name: str, policy: Policy) -> str:
    """In one sentence that names solver and pipeline, by both who apply policies and who check them."""
    assert policy.scheduler is not None
    said = set()
    for attempt in (lambda: apply_policy(pipeline(name), policy), lambda: checked(name, policy)):
        with untouched(name), pytest.raises(PolicyError) as caught:
            attempt()
        said.add(str(caught.value))
    (text,) = said
    assert text.isprintable()
    assert type(pipeline(name)).__name__ in text
    assert policy.scheduler.name in text
    return text


# What the search offers


@pytest.mark.parametrize("solver", [None, *OFFERED])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_solver_that_is_offered_runs_a_whole_call_and_others_are_refused(name: str, solver: str | None) -> None:
    if solver == type(pipeline(name).scheduler).__name__:
        assert solver not in offered(name)
        return
    if solver not in offered(name):
        if type(pipeline(name)).__name__ != "StableDiffusionPipeline":
            assert_refused(name, Policy(steps=STEPS, scheduler=SchedulerChoice(name=str(solver))))
        return
    found, made = offered(name)[solver], []
    for skew in (-MOST_SKEW, 0, MOST_SKEW) if found.skews else (0,):
        policy = Policy(steps=STEPS, **found.fields(skew, STEPS))
        with untouched(name):
            checked(name, policy)
        with applied(pipeline(name), policy):
            made.append(run(name))
            assert solver in (None, type(scheduler_under(pipeline(name))).__name__)
        assert torch.isfinite(made[-1]).all()
    assert len({tuple(latents.flatten().tolist()) for latents in made}) == len(made)


@pytest.mark.parametrize(
    ("name", "solvers"),
    [
        ("sd", ["own solver", "DPMSolver", "UniPC"]),
        ("lcm", ["own solver"]),
        ("lcm-pipeline", ["own solver"]),
        ("ddpm", ["own solver", "DPMSolver", "UniPC"]),
        ("ddim", ["own solver", "DPMSolver", "UniPC"]),
        ("dit", ["own solver", "DPMSolver", "UniPC"]),
        ("flux", ["own solver", "DPMSolver", "UniPC"]),
        ("qwen-image", ["own solver", "DPMSolver", "UniPC"]),
        ("z-image", ["own solver", "DPMSolver", "UniPC"]),
        ("lumina2", ["own solver", "DPMSolver", "UniPC"]),
        ("sana", ["own solver", "UniPC"]),
        # What it passes is not known.
        ("generic", ["own solver"]),
    ],
)
def test_solvers_are_offered_where_the_pipeline_can_call_them(name: str, solvers: list[str]) -> None:
    assert [solver.name for solver in offered(name).values()] == solvers


# Policies by hand

KINDS = ("sd", "sdxl-img2img", "lcm-pipeline", "ddpm", "ddim", "dit", "hunyuandit", "sd3", "flux", "z-image", "generic")


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", KINDS)
def test_a_solver_by_hand_runs_a_whole_call_or_is_refused(name: str, solver: str) -> None:
    # Fewer are too few for Runge-Kutta's.
    policy = Policy(steps=4, scheduler=SchedulerChoice(name=solver))
    try:
        with untouched(name):
            checked(name, policy)
    except PolicyError:
        assert_refused(name, policy)
    else:
        with applied(pipeline(name), policy):
            assert torch.isfinite(run(name)).all()
