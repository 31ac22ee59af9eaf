"""Which solver may stand in for a pipeline's own, and what becomes of what the pipeline passes to it."""

from __future__ import annotations

from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from autotune.core.errors import InputError, PolicyError
from autotune.pipelines.families import family_of, scheduler_calls
from autotune.pipelines.families.scheduling import shift_of
from autotune.policy import Policy, SchedulerChoice
from autotune.runtime import applied, apply_policy
from autotune.runtime.apply import scheduler_under, session_of
from tests.support.builders import FAMILIES

STEPS = 4
DPM, UNIPC = "DPMSolverMultistepScheduler", "UniPCMultistepScheduler"
# Nobody's defaults.
SHIFTS = {"base_image_seq_len": 16, "max_image_seq_len": 1024, "base_shift": 0.3, "max_shift": 0.9}


@cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make()


def policy(solver: str | None, steps: int = STEPS, **config: Any) -> Policy:
    return Policy(steps=steps, scheduler=None if solver is None else SchedulerChoice(name=solver, config=config))


def run(name: str, pipe: Any, **options: Any) -> Tensor:
    """A call that names no steps of its own unless told to."""
    arguments = FAMILIES[name].arguments()
    del arguments["num_inference_steps"]
    return FAMILIES[name].run(pipe, **(arguments | options))


# The noise levels are those of the pipeline


@pytest.mark.parametrize("other_size", [False, True])
@pytest.mark.parametrize("solver", [DPM, "DPMSolverSinglestepScheduler", UNIPC])
@pytest.mark.parametrize("name", ["sd3", "flux", "lumina2", "qwen-image", "z-image"])
def test_a_flow_is_shifted_for_the_pictures_size_whatever_the_solver(name: str, solver: str, other_size: bool) -> None:
    pipe, size = pipeline(name), FAMILIES[name].other_size if other_size else FAMILIES[name].size
    assert size is not None
    own = pipe.scheduler
    pipe.scheduler = type(own).from_config(own.config, use_dynamic_shifting=True, **SHIFTS)
    options = {"height": size[0], "width": size[1]}
    try:
        sigmas = {}
        for choice in (None, solver):
            with applied(pipe, policy(choice)):
                run(name, pipe, **options)
                sigmas[choice] = scheduler_under(pipe).sigmas
    finally:
        pipe.scheduler = own
    family = family_of(pipe)
    latents = family.latent_size(pipe, *size, None, FAMILIES[name].arguments())
    mu = shift_of(SHIFTS, family.image_tokens(pipe, latents))
    even = torch.linspace(1, 0, STEPS + 1)
    expected = torch.exp(torch.tensor(mu)) * even / (1 + (torch.exp(torch.tensor(mu)) - 1) * even)
    torch.testing.assert_close(sigmas[solver], expected, atol=2e-3, rtol=0)
    if name != "sd3":
        # The pipeline spells out where the own solver's lie; of SD3 that goes by the class.
        torch.testing.assert_close(sigmas[None], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("solver", [DPM, "DPMSolverSinglestepScheduler", UNIPC, "FlowMatchHeunDiscreteScheduler"])
@pytest.mark.parametrize("name", ["lumina2", "z-image"])
def test_a_shift_that_the_own_scheduler_ignores_is_ignored_by_others(name: str, solver: str) -> None:
    pipe, shift = pipeline(name), pipeline(name).scheduler.config.shift
    with applied(pipe, policy(solver)):
        run(name, pipe)
        first, second = scheduler_under(pipe).sigmas[:2].tolist()
    even = 1 - 1 / (STEPS - 1 if "Heun" in solver else STEPS)
    assert first == pytest.approx(1, abs=2e-3)
    assert second == pytest.approx(shift * even / (1 + (shift - 1) * even), abs=5e-3)


def test_a_shift_that_pipelines_do_not_pass_cannot_be_turned_on() -> None:
    for solver in (DPM, UNIPC, "FlowMatchEulerDiscreteScheduler"):
        with pytest.raises(PolicyError, match=f"AuraFlowPipeline cannot run under {solver}: use_dynamic_shifting"):
            apply_policy(pipeline("auraflow"), policy(solver, use_dynamic_shifting=True))
    with applied(pipeline("z-image"), policy(UNIPC, use_dynamic_shifting=True)):
        assert torch.isfinite(run("z-image", pipeline("z-image"))).all()


def test_a_linear_shift_is_kept_or_refused() -> None:
    pipe = pipeline("flux")
    own = pipe.scheduler
    pipe.scheduler = type(own).from_config(own.config, time_shift_type="linear")
    try:
        with pytest.raises(PolicyError, match=f"FluxPipeline cannot run under {DPM}: .* time_shift_type is 'linear'"):
            apply_policy(pipe, policy(DPM))
        sigmas = []
        for choice in (None, UNIPC):
            with applied(pipe, policy(choice)):
                run("flux", pipe)
                sigmas.append(scheduler_under(pipe).sigmas)
        # The ends of the schedule are rounded by another thousandth.
        torch.testing.assert_close(sigmas[0], sigmas[1], atol=2e-3, rtol=0)
    finally:
        pipe.scheduler = own


@pytest.mark.parametrize("solver", [DPM, UNIPC])
def test_sigmas_that_a_flows_solver_would_take_for_a_diffusions_are_refused(solver: str) -> None:
    pipe = pipeline("sd3")
    own = pipe.scheduler
    pipe.scheduler = type(own).from_config(own.config, use_karras_sigmas=True)
    try:
        with pytest.raises(PolicyError, match=f"Diffusion3Pipeline cannot run under {solver}: .*use_karras_sigmas"):
            apply_policy(pipe, policy(solver))
        with applied(pipe, policy(solver, use_karras_sigmas=False)):
            assert torch.isfinite(run("sd3", pipe)).all()
    finally:
        pipe.scheduler = own


def test_timesteps_that_bypass_a_flows_shift_are_refused() -> None:
    listed = Policy(steps=3, timesteps=(1000, 700, 300))
    with pytest.raises(PolicyError, match=r"shifts a flow's noise levels but not explicit timesteps, .*: give sigmas"):
        apply_policy(pipeline("sd3"), listed)
    pipe = pipeline("sd3")
    own = pipe.scheduler
    pipe.scheduler = type(own).from_config(own.config, shift=1.0)
    try:
        with applied(pipe, listed):
            assert torch.isfinite(run("sd3", pipe)).all()
    finally:
        pipe.scheduler = own


@pytest.mark.parametrize("steps", [4, 50])
def test_noise_that_a_solver_leaves_is_refused_where_it_would_be_seen(steps: int) -> None:
    with pytest.raises(PolicyError, match="SanaPipeline cannot run under DEISMultistepScheduler: .* leave noise"):
        apply_policy(pipeline("sana"), policy("DEISMultistepScheduler", steps))
    with applied(pipeline("sd"), policy("DEISMultistepScheduler")):
        assert torch.isfinite(run("sd", pipeline("sd"))).all()


def test_trying_a_shift_leaves_the_pipelines_config_alone() -> None:
    pipe = pipeline("sana")
    own = pipe.scheduler
    pipe.scheduler = type(own).from_config(own.config, use_dynamic_shifting=True)
    try:
        before = pipe.scheduler.config.flow_shift
        with applied(pipe, policy(None)):
            assert scheduler_under(pipe).config.flow_shift == before
    finally:
        pipe.scheduler = own


# What is passed to step


def test_what_asks_for_nothing_is_left_out() -> None:
    pipe = pipeline("ddim")
    want = run("ddim", pipe, num_inference_steps=STEPS)
    with applied(pipe, policy(None)):
        assert torch.equal(run("ddim", pipe), want)
    for solver in (DPM, UNIPC, "DDPMScheduler", "PNDMScheduler"):
        with applied(pipe, policy(solver)):
            assert torch.isfinite(run("ddim", pipe, eta=0.0, use_clipped_model_output=False)).all()


@pytest.mark.parametrize(("argument", "value"), [("eta", 0.5), ("use_clipped_model_output", True)])
def test_what_asks_for_something_is_refused(argument: str, value: Any) -> None:
    pipe = pipeline("ddim")
    run("ddim", pipe, num_inference_steps=STEPS, **{argument: value})
    with applied(pipe, policy(DPM)):
        with pytest.raises(InputError, match=f"DDIMPipeline passes {argument}={value!r} to its scheduler, which {DPM}"):
            run("ddim", pipe, **{argument: value})
        session = session_of(pipe)
        assert session is not None
        assert session.plan is None
        assert torch.isfinite(run("ddim", pipe)).all()


def test_the_generator_reaches_solvers_that_draw() -> None:
    pipe = pipeline("ddim")
    with applied(pipe, policy("DDPMScheduler")):
        one, same, other = (run("ddim", pipe, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_what_only_the_own_schedulers_timesteps_take_is_refused_before_the_first_step() -> None:
    pipe = pipeline("lcm-pipeline")
    with applied(pipe, policy("DDIMScheduler")):
        assert torch.isfinite(run("lcm-pipeline", pipe)).all()
        calls: list[int] = []
        handle = pipe.unet.register_forward_pre_hook(lambda *_: calls.append(1))
        with pytest.raises(InputError, match="original_inference_steps=20 to its scheduler, which DDIMScheduler"):
            run("lcm-pipeline", pipe, original_inference_steps=20)
        handle.remove()
    assert not calls


def test_a_variance_that_only_the_own_scheduler_takes_binds_a_pipeline_to_it() -> None:
    pipe = FAMILIES["ddpm"].make()
    pipe.unet = type(pipe.unet).from_config(pipe.unet.config, out_channels=6)
    pipe.scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
    with applied(pipe, policy(None)):
        assert torch.isfinite(run("ddpm", pipe)).all()
    with pytest.raises(PolicyError, match=f"DDPMPipeline cannot run under {UNIPC}: its denoiser predicts a variance"):
        apply_policy(pipe, policy(UNIPC))


# Pipelines that nobody listed


class Rewritten(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
    """Asks which arguments its scheduler's step takes."""

    def __call__(self, *args: Any, num_inference_steps: int = 50, **kwargs: Any) -> Any:
        return super().__call__(*args, num_inference_steps=num_inference_steps, **kwargs)


class RewrittenDiT(diffusers.DiTPipeline):  # type: ignore[misc]
    """Does not, and scales the input only."""

    def __call__(self, *args: Any, num_inference_steps: int = 50, **kwargs: Any) -> Any:
        return super().__call__(*args, num_inference_steps=num_inference_steps, **kwargs)


@pytest.mark.parametrize("solver", [None, DPM, "EulerDiscreteScheduler"])
def test_an_unlisted_pipeline_that_asks_what_step_takes_runs_under_any(solver: str | None) -> None:
    pipe = Rewritten(**pipeline("sd").components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    assert scheduler_calls(pipe) is None
    with applied(pipeline("sd"), policy(solver)):
        want = run("sd", pipeline("sd"))
    with applied(pipe, policy(solver)):
        assert torch.equal(run("sd", pipe), want)


@pytest.mark.parametrize(
    ("solver", "reason"),
    [
        (DPM, "it may read a value that this solver's steps do not return"),
        ("DDPMScheduler", "it may pass eta, use_clipped_model_output, variance_noise, which this solver does not take"),
        ("EulerDiscreteScheduler", "it does not scale its noise for this solver"),
    ],
)
def test_another_unlisted_pipeline_keeps_its_solver(solver: str, reason: str) -> None:
    pipe = RewrittenDiT(**pipeline("dit").components)
    pipe.set_progress_bar_config(disable=True)
    with applied(pipe, policy(None)):
        assert torch.isfinite(run("dit", pipe)).all()
    with pytest.raises(PolicyError, match=f"RewrittenDiT cannot run under {solver}: {reason}; leave the solver out"):
        apply_policy(pipe, policy(solver))


def test_an_unlisted_pipeline_of_an_lcm_keeps_its_solver() -> None:
    components = dict(pipeline("lcm-pipeline").components)
    pipe = diffusers.LatentConsistencyModelImg2ImgPipeline(**components, requires_safety_checker=False)
    with pytest.raises(PolicyError, match=f"LatentConsistencyModelImg2ImgPipeline cannot run under {DPM}: it may read"):
        apply_policy(pipe, policy(DPM), strict=False)
    with applied(pipe, policy(None), strict=False):
        pass
