"""Every scheduler under every technique at once: a change of size, caching and a guidance interval in one policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from autotune.core.errors import InputError, PolicyError
from autotune.cost import Pricer
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage, SchedulerChoice
from autotune.runtime import applied, apply_policy
from autotune.runtime.apply import scheduler_under
from autotune.runtime.schedulers import SOLVERS
from tests.support.builders import FAMILIES
from tests.support.techniques import structure_of
from tests.support.watch import Watch, traces

STEPS = 5
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
# By family: the class and what is set besides the config of the family's own scheduler.
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "DDIM": ("sd", "DDIMScheduler", {}),
    "DDIM trailing": ("sd", "DDIMScheduler", {"timestep_spacing": "trailing"}),
    "DDPM": ("sd", "DDPMScheduler", {}),
    "PNDM": ("sd", "PNDMScheduler", {"skip_prk_steps": True}),
    "PNDM with Runge-Kutta": ("sd", "PNDMScheduler", {"skip_prk_steps": False}),
    "Euler": ("sd", "EulerDiscreteScheduler", {}),
    "Euler ancestral": ("sd", "EulerAncestralDiscreteScheduler", {}),
    "Heun": ("sd", "HeunDiscreteScheduler", {}),
    "KDPM2": ("sd", "KDPM2DiscreteScheduler", {}),
    "KDPM2 ancestral": ("sd", "KDPM2AncestralDiscreteScheduler", {}),
    "LMS": ("sd", "LMSDiscreteScheduler", {}),
    "DPM++ 2M": ("sd", "DPMSolverMultistepScheduler", {}),
    "DPM++ 2M Karras": ("sd", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "DPM++ 2M SDE": ("sd", "DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "DPM++ singlestep": ("sd", "DPMSolverSinglestepScheduler", {}),
    "DEIS": ("sd", "DEISMultistepScheduler", {}),
    "UniPC": ("sd", "UniPCMultistepScheduler", {}),
    "LCM": ("sd", "LCMScheduler", {}),
    "flow Euler": ("sd3", "FlowMatchEulerDiscreteScheduler", {}),
    "flow Euler, stochastic": ("sd3", "FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "flow Heun": ("sd3", "FlowMatchHeunDiscreteScheduler", {}),
    "flow DPM++": ("sd3", "DPMSolverMultistepScheduler", FLOW),
    "flow DPM++ singlestep": ("sd3", "DPMSolverSinglestepScheduler", FLOW),
    "flow DEIS": ("sd3", "DEISMultistepScheduler", FLOW),
    "flow UniPC": ("sd3", "UniPCMultistepScheduler", FLOW),
}
# Its last step on a flow goes nowhere: no policy chooses it, but a pipeline may come with it.
LEAVES_NOISE = {"flow DEIS"}
UNITS = {"sd": "up_blocks.1", "sd3": "transformer_blocks.2"}


@pytest.fixture(autouse=True, scope="module")
def _countable_attention() -> Iterator[None]:
    """The fused attention kernel of the CPU is not counted; the plain one is, and computes the same."""
    with sdpa_kernel(SDPBackend.MATH):
        yield


@cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make()


@cache
def own_scheduler(name: str) -> Any:
    return pipeline(name).scheduler


@cache
def pricer(name: str) -> Pricer:
    height, width = FAMILIES[name].size
    return Pricer(pipeline(name), height, width, text_tokens=FAMILIES[name].text_tokens)


@contextmanager
def under(name: str, scheduler: Any) -> Iterator[Any]:
    """The family's pipeline as if it had been built with ``scheduler``."""
    pipe = pipeline(name)
    original = own_scheduler(name)
    pipe.scheduler = scheduler
    try:
        yield pipe
    finally:
        pipe.scheduler = original


def scheduler_of(name: str, cls: str, config: Mapping[str, Any]) -> Any:
    """As users make one: from the config of the one that came with the model."""
    own = own_scheduler(name).config
    flow = {"flow_shift": own["shift"]} if "use_flow_sigmas" in config else {}
    return getattr(diffusers, cls).from_config(own, **flow, **config)


def run(name: str, pipe: Any, **options: Any) -> Tensor:
    arguments = FAMILIES[name].arguments()
    del arguments["num_inference_steps"]
    # Some schedulers draw from the global generator, whatever the call is given.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return FAMILIES[name].run(pipe, **(arguments | options))


def policy_of(name: str, handoff: Any, **fields: Any) -> Policy:
    """Half size to begin with, guidance in the middle, and a unit that is computed on both sides of the change."""
    return Policy(
        steps=STEPS,
        resolution=(ResolutionStage(scale=0.5, until_step=3, handoff=handoff),),
        guidance=Guidance(start_step=1, stop_step=4),
        cache=(CacheRule(units=(UNITS[name],), compute_steps=(0, 1, 3, 4)),),
        **fields,
    )


def test_no_supported_scheduler_is_missing() -> None:
    assert {cls for _, cls, _ in CASES.values()} == set(SOLVERS)


@pytest.mark.parametrize("case", CASES)
def test_a_scheduler_crosses_sizes_with_caching_and_a_guidance_interval(case: str) -> None:
    name, cls, config = CASES[case]
    outputs: dict[str, Tensor] = {}
    with under(name, scheduler_of(name, cls, config)) as pipe:
        before, plain = traces(pipe), run(name, pipe, num_inference_steps=STEPS)
        calls = len(pipe.scheduler.timesteps)
        denoiser, structure = getattr(pipe, FAMILIES[name].denoiser), structure_of(FAMILIES[name], pipe)
        for handoff in ("renoise", "noise_matched"):
            policy = policy_of(name, handoff)
            with Watch(pipe, denoiser, structure) as watch, applied(pipe, policy):
                watch.follow_session()
                outputs[handoff] = run(name, pipe)
            plan, predicted = pricer(name).plan(policy), pricer(name).price(policy)
            assert torch.isfinite(outputs[handoff]).all()
            assert len(watch.executed) == len(plan.steps) == calls
            assert watch.flops == predicted.flops
            assert max(watch.kept) == predicted.cache_bytes > 0
        assert not torch.equal(outputs["renoise"], outputs["noise_matched"])
        # Nothing of the history of a call reaches the next one; the generator alone decides.
        with applied(pipe, policy_of(name, "renoise")):
            assert torch.equal(run(name, pipe), outputs["renoise"])
        assert traces(pipe) == before
        assert torch.equal(run(name, pipe, num_inference_steps=STEPS), plain)
    # The policy itself can name the solver, over a pipeline built with another.
    with under(name, own_scheduler(name)) as pipe:
        named = policy_of(name, "noise_matched", scheduler=SchedulerChoice(name=cls, config=config))
        if case in LEAVES_NOISE:
            with pytest.raises(PolicyError, match="would leave noise in the pictures"):
                apply_policy(pipe, named)
            return
        with applied(pipe, named):
            assert torch.equal(run(name, pipe), outputs["noise_matched"])
        assert pricer(name).price(named).flops == predicted.flops


SPACINGS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("sd", "DDIMScheduler", "linspace", {"timestep_spacing": "linspace"}),
    ("sd", "DDIMScheduler", "trailing", {"timestep_spacing": "trailing"}),
    ("sd", "EulerDiscreteScheduler", "leading", {"timestep_spacing": "leading"}),
    ("sd", "EulerDiscreteScheduler", "karras", {"use_karras_sigmas": True}),
    ("sd", "EulerDiscreteScheduler", "exponential", {"use_exponential_sigmas": True}),
    ("sd", "HeunDiscreteScheduler", "karras", {"use_karras_sigmas": True}),
    ("sd", "DPMSolverMultistepScheduler", "beta", {"use_beta_sigmas": True}),
    ("sd3", "FlowMatchEulerDiscreteScheduler", "karras", {"use_karras_sigmas": True}),
)


@pytest.mark.parametrize(("name", "cls", "spacing", "config"), SPACINGS, ids=[f"{c}-{s}" for _, c, s, _ in SPACINGS])
def test_a_spacing_is_the_one_of_a_scheduler_set_to_it(name: str, cls: str, spacing: Any, config: Any) -> None:
    with under(name, scheduler_of(name, cls, config)) as pipe:
        expected = run(name, pipe, num_inference_steps=STEPS)
    with under(name, scheduler_of(name, cls, {})) as pipe:
        assert not torch.equal(run(name, pipe, num_inference_steps=STEPS), expected)
        with applied(pipe, Policy(steps=STEPS, timesteps=spacing)):
            assert torch.equal(run(name, pipe), expected)


def test_the_default_spacing_is_the_schedulers_own() -> None:
    with under("sd", scheduler_of("sd", "EulerDiscreteScheduler", {"use_karras_sigmas": True})) as pipe:
        expected = run("sd", pipe, num_inference_steps=STEPS)
        with applied(pipe, Policy(steps=STEPS, timesteps="default")):
            assert torch.equal(run("sd", pipe), expected)


@pytest.mark.parametrize("config", [{"use_karras_sigmas": False}, {"use_exponential_sigmas": True}])
def test_a_named_spacing_overrules_the_named_schedulers_config(config: dict[str, Any]) -> None:
    choice = SchedulerChoice(name="EulerDiscreteScheduler", config=config)
    with under("sd", scheduler_of("sd", "EulerDiscreteScheduler", {"use_karras_sigmas": True})) as pipe:
        expected = run("sd", pipe, num_inference_steps=STEPS)
    with (
        under("sd", own_scheduler("sd")) as pipe,
        applied(pipe, Policy(steps=STEPS, scheduler=choice, timesteps="karras")),
    ):
        assert scheduler_under(pipe).config.use_karras_sigmas
        assert not scheduler_under(pipe).config.use_exponential_sigmas
        assert torch.equal(run("sd", pipe), expected)


LEVELS = (901, 750, 500, 100, 7)
NOISE = (13.0, 6.5, 3.1, 0.5, 0.04)
FLOW_NOISE = (1.0, 0.93, 0.8, 0.4, 0.1)
EXPLICIT: dict[str, tuple[str, str, dict[str, Any], Callable[[], dict[str, Any]], dict[str, Any]]] = {
    "DDPM timesteps": ("sd", "DDPMScheduler", {}, lambda: {"timesteps": list(LEVELS)}, {"timesteps": LEVELS}),
    "Euler timesteps": ("sd", "EulerDiscreteScheduler", {}, lambda: {"timesteps": list(LEVELS)}, {"timesteps": LEVELS}),
    "Heun timesteps": ("sd", "HeunDiscreteScheduler", {}, lambda: {"timesteps": list(LEVELS)}, {"timesteps": LEVELS}),
    "DPM++ timesteps": (
        "sd",
        "DPMSolverMultistepScheduler",
        {},
        lambda: {"timesteps": list(LEVELS)},
        {"timesteps": LEVELS},
    ),
    "LCM timesteps": ("sd", "LCMScheduler", {}, lambda: {"timesteps": list(LEVELS)}, {"timesteps": LEVELS}),
    "Euler sigmas": ("sd", "EulerDiscreteScheduler", {}, lambda: {"sigmas": [*NOISE, 0.0]}, {"sigmas": NOISE}),
    "flow Euler sigmas": (
        "sd3",
        "FlowMatchEulerDiscreteScheduler",
        {},
        lambda: {"sigmas": list(FLOW_NOISE)},
        {"sigmas": FLOW_NOISE},
    ),
    "flow UniPC sigmas": (
        "sd3",
        "UniPCMultistepScheduler",
        FLOW,
        # Of a list it cannot compute the shift.
        lambda: {"sigmas": np.array(FLOW_NOISE)},
        {"sigmas": FLOW_NOISE},
    ),
}


@pytest.mark.parametrize("case", EXPLICIT)
def test_explicit_noise_levels_are_those_of_a_plain_call_that_is_given_them(case: str) -> None:
    name, cls, config, arguments, fields = EXPLICIT[case]
    with under(name, scheduler_of(name, cls, config)) as pipe:
        expected = run(name, pipe, **arguments())
        with applied(pipe, Policy(steps=STEPS, **fields)):
            assert torch.equal(run(name, pipe), expected)
            if name == "sd":
                timesteps = pipe.scheduler.timesteps
        # Half of it at half size, on the same noise levels.
        policy = policy_of(name, "noise_matched", **fields)
        with applied(pipe, policy):
            assert torch.isfinite(run(name, pipe)).all()
            if name == "sd":
                assert torch.equal(pipe.scheduler.timesteps, timesteps)


# CogView4 tells its denoiser timesteps that no shift moves, beside the noise levels that it shifts


@pytest.mark.parametrize(
    ("fields", "lists"),
    [
        ({"timesteps": LEVELS}, {"timesteps": list(LEVELS)}),
        # The pipeline rounds the timesteps that it is given, and takes any sigmas with them.
        ({"sigmas": FLOW_NOISE}, {"timesteps": [1000, 930, 800, 400, 100], "sigmas": list(FLOW_NOISE)}),
    ],
)
def test_told_timesteps_are_those_of_the_noise_levels(fields: dict[str, Any], lists: dict[str, Any]) -> None:
    pipe = pipeline("cogview4")
    expected = run("cogview4", pipe, **lists)
    told = pipe.scheduler.timesteps
    with applied(pipe, Policy(steps=STEPS, **fields)):
        torch.testing.assert_close(run("cogview4", pipe), expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(pipe.scheduler.timesteps, told, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "fields",
    [
        {"timesteps": "karras"},
        {"scheduler": SchedulerChoice(name="FlowMatchEulerDiscreteScheduler", config={"shift_terminal": 0.2})},
        {"scheduler": SchedulerChoice(name="FlowMatchEulerDiscreteScheduler", config={"use_dynamic_shifting": False})},
    ],
)
def test_other_noise_levels_than_the_timesteps_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(PolicyError, match="FlowMatchEuler.* would tell the denoiser .* leave its settings and spacing"):
        apply_policy(pipeline("cogview4"), Policy(steps=STEPS, **fields))


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "FlowMatchEulerDiscreteScheduler"])
def test_solvers_that_take_no_timesteps_of_a_flow_are_refused(solver: str) -> None:
    policy = Policy(steps=STEPS, scheduler=SchedulerChoice(name=solver))
    reason = "it tells its denoiser timesteps beside the noise levels" if solver.startswith("UniPC") else ""
    with pytest.raises(PolicyError, match=f"CogView4Pipeline cannot run under {solver}: {reason}"):
        apply_policy(pipeline("cogview4"), policy)


@pytest.mark.parametrize(
    "lists", [{"sigmas": list(FLOW_NOISE)}, {"timesteps": list(LEVELS)}, {"num_inference_steps": STEPS + 1}]
)
def test_a_call_with_steps_of_its_own_is_refused(lists: dict[str, Any]) -> None:
    pipe = pipeline("cogview4")
    with applied(pipe, Policy(steps=STEPS)):
        expected = run("cogview4", pipe)
        with pytest.raises(InputError, match="timesteps of its own|6 steps"):
            run("cogview4", pipe, **lists)
        # The same number, or none, is no other.
        assert torch.equal(run("cogview4", pipe, num_inference_steps=STEPS), expected)
