"""Every solver on every pipeline: where it is offered or accepted whole calls are right; else it is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from autotune.core.errors import PolicyError
from autotune.policy import Policy, SchedulerChoice
from autotune.runtime import applied, apply_policy
from autotune.runtime.rehearsal import check_runs
from autotune.runtime.schedulers import _SOLVERS
from search_spaces.solvers import MOST_SKEW, Solver, solvers_for
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
            assert solver in (None, type(pipeline(name).scheduler).__name__)
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


@pytest.mark.parametrize("solver", _SOLVERS)
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


# Whether what runs is right: a denoiser that knows how its data are distributed makes such data under any solver

SPREAD = 0.3
MANY = 30


def _diffusion(name: str, sample: Tensor, timestep: Any) -> Tensor:
    """The noise that is to be expected in data of N(0, SPREAD) after so many steps of the model's training."""
    kept = pipeline(name).scheduler.alphas_cumprod
    step = torch.as_tensor(timestep, dtype=torch.float32).flatten()[0].clamp(0, len(kept) - 1)
    # Between two timesteps of the training some solvers tell a fraction.
    alpha = torch.lerp(kept[int(step)], kept[min(int(step) + 1, len(kept) - 1)], step % 1)
    signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
    return sample * noise / (signal**2 * SPREAD**2 + noise**2)


def _flow(sample: Tensor, noise: float) -> Tensor:
    """The velocity that is to be expected at a noise of 0 to 1."""
    variance = (1 - noise) ** 2 * SPREAD**2 + noise**2
    return sample * (noise - (1 - noise) * SPREAD**2) / variance


def _unet(name: str, sample: Tensor, timestep: Any, *args: Any, **kwargs: Any) -> Any:
    return SimpleNamespace(sample=_diffusion(name, sample, timestep))


GAUSSIANS: dict[str, Callable[..., Any]] = {
    "sd": lambda sample, timestep, *args, **kwargs: (_diffusion("sd", sample, timestep),),
    "ddpm": lambda sample, timestep: _unet("ddpm", sample, timestep),
    "ddim": lambda sample, timestep: _unet("ddim", sample, timestep),
    "dit": lambda sample, timestep, class_labels: SimpleNamespace(
        sample=torch.cat([_diffusion("dit", sample, timestep)] * 2, dim=1)
    ),
    "sd3": lambda hidden_states, timestep, **kwargs: (_flow(hidden_states, float(timestep[0]) / 1000),),
    "flux": lambda hidden_states, timestep, **kwargs: (_flow(hidden_states, float(timestep[0])),),
}


@contextmanager
def gaussian(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Tensor]]:
    """The pipeline with such a denoiser; in the list is what it decodes where it returns no latents."""
    pipe, decoded = pipeline(name), []

    def decode(latents: Tensor) -> Any:
        decoded.append(latents * pipe.vae.config.scaling_factor)
        return SimpleNamespace(sample=latents[:, :3])

    with monkeypatch.context() as patch:
        patch.setattr(getattr(pipe, FAMILIES[name].denoiser), "forward", GAUSSIANS[name])
        if name == "dit":
            patch.setattr(pipe.vae, "decode", decode)
        yield decoded


def spread(name: str, decoded: list[Tensor]) -> float:
    made = torch.cat([run(name, **_batch(name, seed)) for seed in range(2)])
    if decoded:
        made = torch.cat(decoded)
    if name in ("ddpm", "ddim"):
        made = 2 * made - 1
    return float(made.std())


def _batch(name: str, seed: int) -> dict[str, Any]:
    arguments = FAMILIES[name].arguments(batch=2, guidance=False, seed=seed)
    return {key: arguments[key] for key in arguments if key != "num_inference_steps"}


@pytest.mark.parametrize("solver", _SOLVERS)
@pytest.mark.parametrize("name", GAUSSIANS)
def test_data_are_distributed_as_the_denoiser_knows_them(
    name: str, solver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = pipeline(name)
    policy = Policy(steps=MANY, scheduler=SchedulerChoice(name=solver))
    with gaussian(name, monkeypatch) as decoded:
        try:
            apply_policy(pipe, policy)
        except PolicyError:
            return
        try:
            found = spread(name, decoded)
        finally:
            from autotune.runtime import remove_policy

            remove_policy(pipe)
    assert found == pytest.approx(SPREAD, rel=0.15)
