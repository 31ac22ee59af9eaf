"""Whatever does not fit is refused in one sentence before the denoiser runs, and the pipeline stays as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from autotune import load_policy
from autotune.core.errors import InputError, PolicyError
from autotune.cost import Pricer
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage, SchedulerChoice
from autotune.runtime import applied, apply_policy, describe_model, remove_policy
from autotune.runtime.apply import scheduler_under
from tests.support.builders import FAMILIES
from tests.support.watch import traces

STEPS = 4
HALF = (ResolutionStage(scale=0.5, until_step=2),)


def rule(*units: str, mode: Any = "reuse", **fields: Any) -> CacheRule:
    return CacheRule(units=units, mode=mode, compute_steps=(0, 2), **fields)


def policy(steps: int = STEPS, **fields: Any) -> Policy:
    return Policy(steps=steps, **fields)


def solver(name: str, **config: Any) -> SchedulerChoice:
    return SchedulerChoice(name=name, config=config)


@cache
def pipeline(name: str, scheduler: str | None = None) -> Any:
    """A pipeline that every refusal leaves as it was: they share it."""
    return FAMILIES[name].make(None if scheduler is None else getattr(diffusers, scheduler)())


@cache
def plain(name: str, scheduler: str | None = None) -> Tensor:
    return run(name, FAMILIES[name].make(None if scheduler is None else getattr(diffusers, scheduler)()), STEPS)


def run(name: str, pipe: Any, steps: int | None = None, **options: Any) -> Tensor:
    """A call that names no steps of its own unless told to."""
    arguments = FAMILIES[name].arguments(**options)
    del arguments["num_inference_steps"]
    named = {} if steps is None else {"num_inference_steps": steps}
    return FAMILIES[name].run(pipe, **(arguments | named))


def first_layer(name: str, pipe: Any) -> torch.nn.Module:
    """Every forward of the denoiser calls it, and none is hooked by a policy of these tests."""
    denoiser = getattr(pipe, FAMILIES[name].denoiser)
    layer: torch.nn.Module = next(
        getattr(denoiser, attribute)
        for attribute in ("conv_in", "x_embedder", "pos_embed")
        if hasattr(denoiser, attribute)
    )
    return layer


@contextmanager
def refused(name: str, pipe: Any, error: type[InputError], message: str) -> Iterator[None]:
    """One printable sentence, no forward of the denoiser, and no trace in the pipeline once nothing is applied."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    handle = first_layer(name, pipe).register_forward_pre_hook(count)
    try:
        with pytest.raises(error, match=message) as caught:
            yield
    finally:
        handle.remove()
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 500
    assert calls == 0


UNFIT: dict[str, tuple[str, str | None, dict[str, Any], str]] = {
    "an unknown unit": ("sd", None, {"cache": (rule("up_blocks.9"),)}, r"no unit 'up_blocks\.9'; did you mean"),
    "a pattern that fits nothing": ("sd", None, {"cache": (rule("**.attn7"),)}, r"no unit that fits '\*\*\.attn7'"),
    "a range beyond the end": (
        "flux",
        None,
        {"cache": (rule("transformer_blocks.0-90"),)},
        r"no unit 'transformer_blocks\.90'; did you mean",
    ),
    "units of another kind of model": (
        "flux",
        None,
        {"cache": (rule("up_blocks.0"),)},
        r"no unit 'up_blocks\.0'; did you mean",
    ),
    "a unit in two rules": (
        "sd",
        None,
        {"cache": (rule("mid_block"), rule("mid_block", mode="forecast", order=1))},
        r"two cache rules name 'mid_block[^']*': leave it in one",
    ),
    "a unit named and in a pattern": (
        "sd",
        None,
        {"cache": (rule("**.attn2"), rule("up_blocks.1.attentions.0.transformer_blocks.0.attn2"))},
        r"two cache rules name 'up_blocks\.1\.attentions\.0\.transformer_blocks\.0\.attn2'",
    ),
    "a unit that guidance reuses, too": (
        "sd",
        None,
        {"cache": (rule("**.attn2"),), "guidance": Guidance(stop_step=2, after="cross_attention")},
        r"two cache rules name '.*attn2'",
    ),
    "a residual where channels change": (
        "sd",
        None,
        {"cache": (rule("down_blocks.1.resnets.0", mode="residual"),)},
        r"'down_blocks\.1\.resnets\.0' has no residual, .* use mode 'reuse' or 'forecast'",
    ),
    "a residual of an upsampling block": (
        "sd",
        None,
        {"cache": (rule("up_blocks.0", mode="residual"),)},
        r"'up_blocks\.0[^']*' has no residual",
    ),
    "cross-attention in a joint model": (
        "flux",
        None,
        {"guidance": Guidance(stop_step=2, after="cross_attention")},
        r"guidance\.after is 'cross_attention' and this denoiser has no such units: use 'nothing'",
    ),
    "a scale between latents": (
        "sd",
        None,
        {"resolution": (ResolutionStage(scale=0.3, until_step=2),)},
        r"scale 0\.3 gives latents of 4\.8 a side, .* multiples of 4: use one of 0\.25, 0\.5, 0\.75",
    ),
    "a scale the denoiser cannot take": (
        "sd",
        None,
        {"resolution": (ResolutionStage(scale=0.375, until_step=2),)},
        r"latents of 6 a side, .* multiples of 4: use one of 0\.25, 0\.5, 0\.75",
    ),
    "a later stage's scale": (
        "sd3",
        None,
        {"resolution": (*HALF, ResolutionStage(scale=0.9, until_step=3))},
        r"scale 0\.9 gives latents of 14\.4 a side",
    ),
    "a spacing the scheduler has not": (
        "sd",
        None,
        {"timesteps": "karras"},
        r"DDIMScheduler has no 'karras' spacing here; it has leading, linspace, trailing",
    ),
    "a flow without that spacing": (
        "sd3",
        None,
        {"timesteps": "trailing"},
        r"FlowMatchEulerDiscreteScheduler has no 'trailing' spacing here; it has karras",
    ),
    "timesteps the scheduler does not take": (
        "sd",
        None,
        {"timesteps": (900, 600, 300, 0)},
        r"DDIMScheduler takes no explicit timesteps: name a spacing, or a scheduler that takes them",
    ),
    "sigmas the scheduler does not take": (
        "sd",
        "DPMSolverMultistepScheduler",
        {"sigmas": (14.0, 5.0, 1.0, 0.1)},
        r"DPMSolverMultistepScheduler takes no explicit sigmas",
    ),
    "timesteps beyond training": (
        "sd",
        "EulerDiscreteScheduler",
        {"timesteps": (1200, 600, 300, 0)},
        r"timesteps: 1200 lies beyond 999, the last that EulerDiscreteScheduler has",
    ),
    "a flow's sigmas beyond noise": (
        "sd3",
        None,
        {"sigmas": (14.0, 0.7, 0.3, 0.1)},
        r"sigmas: 14 lies beyond 1, pure noise in a flow",
    ),
    "sigmas beyond training": (
        "sd",
        "EulerDiscreteScheduler",
        {"sigmas": (9e9, 9e8, 3.0, 0.1)},
        r"EulerDiscreteScheduler begins with timestep 999 twice",
    ),
    "sigmas that are not finite": (
        "sd",
        "EulerDiscreteScheduler",
        {"sigmas": (1e308, 14.0, 3.0, 0.1)},
        r"EulerDiscreteScheduler makes noise levels that are not finite",
    ),
    "steps the scheduler cannot make": (
        "sd",
        "LCMScheduler",
        {"steps": 60},
        r"LCMScheduler cannot run the policy's steps or settings \(.*60.*\): change them or",
    ),
    "steps without a noise level": (
        "sd",
        None,
        {"steps": 1000},
        r"DDIMScheduler has no noise level for some of its 1000 steps: use fewer",
    ),
    "a solver nobody knows": (
        "sd",
        None,
        {"scheduler": solver("EulerDiscrete")},
        r"the scheduler 'EulerDiscrete' is not supported; did you mean 'EulerDiscreteScheduler'\?",
    ),
    "a solver that is not supported": (
        "sd",
        None,
        {"scheduler": solver("IPNDMScheduler")},
        r"the scheduler 'IPNDMScheduler' is not supported",
    ),
    "a flow solver for a diffusion model": (
        "sd",
        None,
        {"scheduler": solver("FlowMatchEulerDiscreteScheduler")},
        r"FlowMatchEulerDiscreteScheduler solves flow models, this model's DDIMScheduler is for diffusion",
    ),
    "a diffusion solver for a flow model": (
        "sd3",
        None,
        {"scheduler": solver("DDIMScheduler")},
        r"DDIMScheduler solves diffusion models, this model's .* is for flow",
    ),
    "a setting the solver has not": (
        "sd",
        None,
        {"scheduler": solver("EulerDiscreteScheduler", use_karas_sigmas=True)},
        r"no setting 'use_karas_sigmas'; did you mean 'use_karras_sigmas'\?",
    ),
    "settings that exclude each other": (
        "sd",
        None,
        {"scheduler": solver("HeunDiscreteScheduler", use_karras_sigmas=True, use_beta_sigmas=True)},
        r"HeunDiscreteScheduler refuses these settings: .*Only one of",
    ),
    "a setting of another type": (
        "sd",
        None,
        {"scheduler": solver("DPMSolverMultistepScheduler", timestep_spacing=3)},
        r"DPMSolverMultistepScheduler cannot run the policy's steps or settings \(",
    ),
    "another prediction type": (
        "sd",
        None,
        {"scheduler": solver("DDPMScheduler", prediction_type="v_prediction")},
        r"set to prediction_type 'v_prediction', this model predicts 'epsilon': leave prediction_type out",
    ),
    "another training": (
        "sd",
        None,
        {"scheduler": solver("DDPMScheduler", num_train_timesteps=2**50)},
        r"scheduler\.config\.num_train_timesteps: \d+ is not what the model was trained with: leave it out",
    ),
}


@pytest.mark.parametrize("case", UNFIT)
def test_a_policy_that_does_not_fit_is_refused_when_applied(case: str) -> None:
    name, scheduler, fields, message = UNFIT[case]
    pipe = pipeline(name, scheduler)
    # With its model's size on record a scale is checked right away.
    unfit = policy(model=describe_model(pipe), **fields)
    before = traces(pipe)
    with refused(name, pipe, PolicyError, message):
        apply_policy(pipe, unfit)
    assert traces(pipe) == before
    with pytest.raises(InputError, match="no policy"):
        remove_policy(pipe)


@pytest.mark.parametrize(("name", "scheduler"), sorted({(case[0], case[1] or "") for case in UNFIT.values()}))
def test_after_all_refusals_the_pipeline_makes_the_same_pictures(name: str, scheduler: str) -> None:
    pipe = pipeline(name, scheduler or None)
    for family, solver_name, fields, _ in UNFIT.values():
        if (family, solver_name or "") == (name, scheduler):
            with pytest.raises(PolicyError):
                apply_policy(pipe, policy(model=describe_model(pipe), **fields))
    assert torch.equal(run(name, pipe, STEPS), plain(name, scheduler or None))


# It costs nothing to ask what a policy costs, so pricing refuses what applying refuses.
@pytest.mark.parametrize("case", UNFIT)
def test_a_policy_that_does_not_fit_has_no_price(case: str) -> None:
    name, scheduler, fields, message = UNFIT[case]
    pricer = Pricer(pipeline(name, scheduler), text_tokens=FAMILIES[name].text_tokens)
    with pytest.raises(PolicyError, match=message):
        pricer.price(policy(**fields))


@pytest.mark.parametrize("resolution", ["scale", "until_step"])
def test_steps_and_stages_that_contradict_each_other_are_no_policy(resolution: str) -> None:
    """Refused before there is a pipeline: by the policy itself."""
    stages = {
        "scale": ((0.75, 1), (0.5, 2)),
        "until_step": ((0.5, STEPS), (0.75, STEPS + 1)),
    }[resolution]
    with pytest.raises(
        PolicyError, match=rf"resolution: .*{'scales must grow' if resolution == 'scale' else 'until_'}"
    ):
        load_policy(
            {
                "format": "postdiff-policy",
                "version": 1,
                "steps": STEPS,
                "resolution": [{"scale": scale, "until_step": until} for scale, until in stages],
            }
        )


SIZES = {"sd": (40, 40), "sdxl": (48, 40), "sd3": (36, 36), "flux": (36, 32)}


@pytest.mark.parametrize("name", SIZES)
def test_a_call_at_a_size_the_scale_does_not_fit_is_refused(name: str) -> None:
    """The policy fits the native size; the size of a call is known only when the call is made."""
    pipe, (height, width) = pipeline(name), SIZES[name]
    with applied(pipe, policy(resolution=HALF)):
        with refused(name, pipe, PolicyError, r"scale 0\.5 gives latents of .* use one of 0\.|no other scale"):
            run(name, pipe, height=height, width=width)
        # The next call of a size that fits is none the worse for it.
        assert torch.isfinite(run(name, pipe)).all()
    assert torch.equal(run(name, pipe, STEPS), plain(name))


CALLS: dict[str, tuple[str, str | None, dict[str, Any], str]] = {
    "other steps": ("sd", None, {"num_inference_steps": 9}, r"has 4 steps and the call asks for 9 steps"),
    "other steps of a flow": ("flux", None, {"num_inference_steps": 9}, r"has 4 steps and the call asks for 9 steps"),
    "timesteps": ("sd", "EulerDiscreteScheduler", {"timesteps": [900, 400, 200, 1]}, r"asks for timesteps of its own"),
    "timesteps of a scheduler without": ("sd", None, {"timesteps": [900, 1]}, r"asks for timesteps of its own"),
    "sigmas": ("sd", "EulerDiscreteScheduler", {"sigmas": [14.0, 5.0, 1.0, 0.1]}, r"asks for timesteps of its own"),
    "sigmas of a flow": ("flux", None, {"sigmas": [1.0, 0.9, 0.5, 0.1]}, r"asks for timesteps of its own"),
    "no sigmas at all": ("sd3", None, {"sigmas": []}, r"asks for timesteps of its own"),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_call_with_steps_of_its_own_is_refused(case: str) -> None:
    name, scheduler, changes, message = CALLS[case]
    pipe = pipeline(name, scheduler)
    with applied(pipe, policy()):
        with refused(
            name, pipe, InputError, rf"{message}: leave num_inference_steps, .* or call remove_policy\(pipe\)"
        ):
            arguments = FAMILIES[name].arguments()
            del arguments["num_inference_steps"]
            FAMILIES[name].run(pipe, **(arguments | changes))
        assert torch.equal(run(name, pipe), plain(name, scheduler))
        assert torch.equal(run(name, pipe, STEPS), plain(name, scheduler))
    assert torch.equal(run(name, pipe, STEPS), plain(name, scheduler))


@pytest.mark.parametrize("name", ["sd", "flux"])
@pytest.mark.parametrize("unfinished", [False, True])
def test_a_scheduler_swapped_afterwards_is_refused(name: str, unfinished: bool) -> None:
    pipe = FAMILIES[name].make()
    original = pipe.scheduler
    with applied(pipe, policy(resolution=HALF)):
        if unfinished:
            # As by a call that ended between its timesteps and its first step.
            pipe.scheduler.set_timesteps(STEPS, **({"mu": 1.0} if name == "flux" else {}))
        pipe.scheduler = type(original).from_config(original.config)
        swapped = (
            rf"scheduler was replaced by a {type(original).__name__} after apply_policy: call remove_policy\(pipe\)"
        )
        with refused(name, pipe, InputError, swapped):
            run(name, pipe)
        theirs = pipe.scheduler
    # What its user put there stays.
    assert pipe.scheduler is theirs
    assert torch.equal(run(name, pipe, STEPS), plain(name))
    pipe.scheduler = original
    assert torch.equal(run(name, pipe, STEPS), plain(name))


def test_applying_and_removing_twice_are_refused() -> None:
    pipe = FAMILIES["sd"].make()
    before = traces(pipe)
    with refused("sd", pipe, InputError, r"runs under no policy: there is nothing to remove"):
        remove_policy(pipe)
    apply_policy(pipe, policy(resolution=HALF))
    expected = run("sd", pipe)
    with refused("sd", pipe, InputError, r"already runs under a policy: call remove_policy\(pipe\) first"):
        apply_policy(pipe, policy())
    assert torch.equal(run("sd", pipe), expected)
    remove_policy(pipe)
    with refused("sd", pipe, InputError, r"runs under no policy"):
        remove_policy(pipe)
    assert traces(pipe) == before
    assert torch.equal(run("sd", pipe, STEPS), plain("sd"))


def test_a_solver_named_by_the_policy_leaves_the_pipelines_own_alone() -> None:
    pipe = FAMILIES["sd"].make()
    before, own, settings = traces(pipe), pipe.scheduler, dict(pipe.scheduler.config)
    with applied(pipe, policy(scheduler=solver("HeunDiscreteScheduler"), timesteps="karras")):
        assert type(scheduler_under(pipe)).__name__ == "HeunDiscreteScheduler"
        run("sd", pipe)
        assert pipe.scheduler is own
    assert pipe.scheduler is own
    assert dict(own.config) == settings
    assert traces(pipe) == before
    assert torch.equal(run("sd", pipe, STEPS), plain("sd"))


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (diffusers.IPNDMScheduler(), r"IPNDMScheduler is not supported; supported schedulers: DDIMScheduler, "),
        (diffusers.PNDMScheduler(prediction_type="sample"), r"'sample' is not supported; PNDMScheduler supports epsil"),
        (diffusers.UniPCMultistepScheduler(use_flow_sigmas=True), r"use_flow_sigmas=True goes with"),
    ],
)
def test_an_unsupported_scheduler_is_refused(scheduler: Any, message: str) -> None:
    pipe = FAMILIES["sd"].make(scheduler)
    before = traces(pipe)
    for unfit in (policy(), policy(scheduler=solver("DDIMScheduler"))):
        with refused("sd", pipe, InputError, message):
            apply_policy(pipe, unfit)
    assert traces(pipe) == before


MISMATCHES: dict[str, tuple[str, str]] = {
    "denoiser_fingerprint": (
        "0123456789abcdef",
        r"its denoiser fingerprint is '0123456789abcdef', this pipeline's is ",
    ),
    "scheduler_fingerprint": ("0123456789abcdef", r"its scheduler fingerprint is '0123456789abcdef', this pipeline's"),
    "pipeline": ("FluxPipeline", r"its pipeline is 'FluxPipeline', this pipeline's is 'StableDiffusionPipeline'"),
    "denoiser": ("DiTTransformer2DModel", r"its denoiser is 'DiTTransformer2DModel', .* 'UNet2DConditionModel'"),
    "scheduler": ("EulerDiscreteScheduler", r"its scheduler is 'EulerDiscreteScheduler', .* 'DDIMScheduler'"),
}


@pytest.mark.parametrize("field", MISMATCHES)
def test_a_policy_for_another_model_is_refused(field: str) -> None:
    pipe = pipeline("sd")
    value, message = MISMATCHES[field]
    strange = policy(model=describe_model(pipe, STEPS).model_copy(update={field: value}))
    configs = field.endswith("fingerprint")
    with refused("sd", pipe, PolicyError, "made for another model: " + message + (".*strict=False" if configs else "")):
        apply_policy(pipe, strange)
    if configs:
        # The same classes with another config: taken when told to.
        with applied(pipe, strange, strict=False):
            assert torch.equal(run("sd", pipe), plain("sd"))
    else:
        with refused("sd", pipe, PolicyError, message):
            apply_policy(pipe, strange, strict=False)
    assert torch.equal(run("sd", pipe, STEPS), plain("sd"))


def test_methods_that_another_tool_replaced_come_back() -> None:
    pipe = FAMILIES["sd"].make()
    original = pipe.scheduler.step
    steps = 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal steps
        steps += 1
        return original(*args, **kwargs)

    pipe.scheduler.step = counting
    with applied(pipe, policy(steps=3)):
        run("sd", pipe)
    assert steps == 3
    assert pipe.scheduler.step is counting
