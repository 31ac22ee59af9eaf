"""Noise levels, predicted x0, calls a step and history of every supported scheduler, against diffusers' own.

Of :mod:`autotune.runtime.schedulers`, and of :mod:`autotune.runtime.noise_levels` that it reads them with.
"""

from __future__ import annotations

import copy
import math
import re
from functools import cache, partial
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from autotune.core.errors import InputError, PolicyError
from autotune.runtime.resolution import HANDOVERS, hand_over, resize, shrink_noise
from autotune.runtime.schedulers import (
    SOLVERS,
    calls_per_step,
    check_scheduler,
    is_flow,
    level,
    parameters,
    predict_x0,
    prediction_type,
    restart_history,
)
from autotune.runtime.substitutes import explicit, make_scheduler, with_spacing

# Divides 1000: then DDIM and PNDM land on the next timestep exactly.
STEPS = 10
LOW, MIDDLE, FULL = (4, 6), (6, 9), (8, 12)
BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
PLAIN = {"clip_sample": False}
FLOW_SIGMAS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}

DETERMINISTIC: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", BETAS | PLAIN),
    "ddim offset": ("DDIMScheduler", BETAS | PLAIN | {"steps_offset": 1, "set_alpha_to_one": False}),
    "pndm": ("PNDMScheduler", BETAS | {"skip_prk_steps": True}),
    "pndm offset": ("PNDMScheduler", BETAS | {"skip_prk_steps": True, "steps_offset": 1}),
    "pndm prk": ("PNDMScheduler", BETAS),
    "euler": ("EulerDiscreteScheduler", BETAS),
    "euler leading": ("EulerDiscreteScheduler", BETAS | {"timestep_spacing": "leading", "steps_offset": 1}),
    "euler trailing v": (
        "EulerDiscreteScheduler",
        BETAS | {"timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    ),
    "heun": ("HeunDiscreteScheduler", BETAS),
    "heun karras": ("HeunDiscreteScheduler", BETAS | {"use_karras_sigmas": True}),
    "kdpm2": ("KDPM2DiscreteScheduler", BETAS),
    "lms": ("LMSDiscreteScheduler", BETAS),
    "lms v": ("LMSDiscreteScheduler", BETAS | {"prediction_type": "v_prediction"}),
    "dpm++ 2m": ("DPMSolverMultistepScheduler", BETAS),
    "dpm++ 3m karras": ("DPMSolverMultistepScheduler", BETAS | {"solver_order": 3, "use_karras_sigmas": True}),
    "dpm++ 2m trailing v": (
        "DPMSolverMultistepScheduler",
        BETAS | {"timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    ),
    "dpm++ flow": ("DPMSolverMultistepScheduler", FLOW_SIGMAS),
    "dpm": ("DPMSolverMultistepScheduler", BETAS | {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}),
    "dpm++ 2s": ("DPMSolverSinglestepScheduler", BETAS),
    "dpm++ 3s": ("DPMSolverSinglestepScheduler", BETAS | {"solver_order": 3}),
    "dpm 2s": (
        "DPMSolverSinglestepScheduler",
        BETAS | {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    "dpm++ 2s flow": ("DPMSolverSinglestepScheduler", FLOW_SIGMAS),
    "deis": ("DEISMultistepScheduler", BETAS),
    "deis 3": ("DEISMultistepScheduler", BETAS | {"solver_order": 3}),
    "unipc": ("UniPCMultistepScheduler", BETAS),
    "unipc 3": ("UniPCMultistepScheduler", BETAS | {"solver_order": 3}),
    "unipc noise": ("UniPCMultistepScheduler", BETAS | {"predict_x0": False, "final_sigmas_type": "sigma_min"}),
    "unipc flow": ("UniPCMultistepScheduler", FLOW_SIGMAS),
    "flow euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "flow euler karras": ("FlowMatchEulerDiscreteScheduler", {"use_karras_sigmas": True}),
    "flow heun": ("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
}
STOCHASTIC: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm": ("DDPMScheduler", BETAS | PLAIN),
    "lcm": ("LCMScheduler", {}),
    "euler ancestral": ("EulerAncestralDiscreteScheduler", BETAS),
    "kdpm2 ancestral": ("KDPM2AncestralDiscreteScheduler", BETAS),
    "sde dpm++ 2m": ("DPMSolverMultistepScheduler", BETAS | {"algorithm_type": "sde-dpmsolver++"}),
    "sde dpm": (
        "DPMSolverMultistepScheduler",
        BETAS | {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    "sde dpm++ 2s": ("DPMSolverSinglestepScheduler", BETAS | {"algorithm_type": "sde-dpmsolver++"}),
    "flow euler stochastic": ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}),
    "pndm v": ("PNDMScheduler", BETAS | {"skip_prk_steps": True, "prediction_type": "v_prediction"}),
}
# These miss the point at full size, too: averages of velocities bend a straight line, and this SDE solver's
# noise is right for small steps only.
INEXACT = {"pndm v", "sde dpm"}
CASES = DETERMINISTIC | STOCHASTIC
PREDICTIONS = [
    (name, kind)
    for name, kinds in {
        "DDIMScheduler": "epsilon v_prediction sample",
        "DDPMScheduler": "epsilon v_prediction sample",
        "PNDMScheduler": "epsilon v_prediction",
        "LCMScheduler": "epsilon v_prediction sample",
        "EulerDiscreteScheduler": "epsilon v_prediction sample",
        "EulerAncestralDiscreteScheduler": "epsilon v_prediction",
        "HeunDiscreteScheduler": "epsilon v_prediction sample",
        "KDPM2DiscreteScheduler": "epsilon v_prediction",
        "KDPM2AncestralDiscreteScheduler": "epsilon v_prediction",
        "LMSDiscreteScheduler": "epsilon v_prediction sample",
        "DPMSolverMultistepScheduler": "epsilon v_prediction sample flow_prediction",
        "DPMSolverSinglestepScheduler": "epsilon v_prediction sample flow_prediction",
        "DEISMultistepScheduler": "epsilon v_prediction sample flow_prediction",
        "UniPCMultistepScheduler": "epsilon v_prediction sample flow_prediction",
    }.items()
    for kind in kinds.split()
]


@cache
def built(case: str) -> Any:
    """Some classes take a second to construct."""
    name, config = CASES[case]
    return getattr(diffusers, name)(**config)


def make(case: str, steps: int = STEPS) -> Any:
    scheduler = copy.deepcopy(built(case))
    scheduler.set_timesteps(steps)
    return scheduler


def of_kind(name: str, kind: str) -> Any:
    flow = {"use_flow_sigmas": True} if kind == "flow_prediction" else {}
    scheduler = getattr(diffusers, name)(prediction_type=kind, **flow)
    scheduler.set_timesteps(STEPS)
    return scheduler


def noise_of(size: tuple[int, int] = FULL, seed: int = 0) -> Tensor:
    return torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(seed))


def implied_output(scheduler: Any, call: int, x0: Tensor, noise: Tensor) -> Tensor:
    """What an exact denoiser of the single point x0 puts out for latents with this noise."""
    signal, noise_level = level(scheduler, call)
    norm = math.hypot(signal, noise_level)
    outputs = {
        "epsilon": noise,
        "v_prediction": (signal * noise - noise_level * x0) / norm,
        "sample": x0.expand_as(noise),
        "flow_prediction": noise - x0,
    }
    return outputs[prediction_type(scheduler)]


def step(scheduler: Any, call: int, output: Tensor, sample: Tensor) -> Any:
    timestep = scheduler.timesteps[call]
    # Schedulers of the sigma kind warn unless this ran.
    if hasattr(scheduler, "scale_model_input"):
        scheduler.scale_model_input(sample, timestep)
    return scheduler.step(output, timestep, sample)


def noised(scheduler: Any, call: int, x0: Tensor, noise: Tensor) -> Any:
    """The scheduler's own way of adding noise for the level of a call."""
    timestep = scheduler.timesteps[call : call + 1]
    if isinstance(scheduler, diffusers.FlowMatchHeunDiscreteScheduler):
        scheduler._step_index = call
        return scheduler.scale_noise(x0, timestep, noise)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(call)
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(x0, timestep, noise)
    return scheduler.add_noise(x0, noise, timestep)


@pytest.mark.parametrize("case", CASES)
def test_level_is_what_the_scheduler_itself_adds_noise_with(case: str) -> None:
    scheduler = make(case)
    x0, noise = noise_of(seed=1), noise_of(seed=2)
    # A second-order DPM solver adds noise for its midpoints nowhere.
    stride = 2 if "kdpm2" in case else 1
    for call in range(0, len(scheduler.timesteps), stride):
        signal, noise_level = level(scheduler, call)
        expected = noised(scheduler, call, x0, noise)
        torch.testing.assert_close(signal * x0 + noise_level * noise, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_levels_end_almost_clean_and_noise_never_grows_from_step_to_step(case: str) -> None:
    scheduler = make(case)
    calls = calls_per_step(scheduler, STEPS, len(scheduler.timesteps))
    levels = [level(scheduler, sum(calls[:index])) for index in range(STEPS + 1)]
    noise = [noise / (signal + noise) for signal, noise in levels]
    assert noise == sorted(noise, reverse=True)
    assert noise[-1] < 0.1
    signal, _ = level(scheduler, len(scheduler.timesteps))
    assert signal == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("name", "kind"), PREDICTIONS)
def test_predict_x0_inverts_the_exact_denoiser(name: str, kind: str) -> None:
    scheduler = of_kind(name, kind)
    x0, noise = 0.5 * noise_of(seed=1).clamp(-1, 1), noise_of(seed=2)
    for call in range(len(scheduler.timesteps) - 1):
        signal, noise_level = level(scheduler, call)
        sample = signal * x0 + noise_level * noise
        predicted = predict_x0(scheduler, call, implied_output(scheduler, call, x0, noise), sample)
        # The error of a float32 sample is noise_level / signal times as large in x0.
        torch.testing.assert_close(predicted, x0, atol=1e-6 * (1 + 10 * noise_level / signal), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("DDIMScheduler", {}),
        ("DDIMScheduler", {"prediction_type": "v_prediction", "clip_sample": False}),
        ("DDIMScheduler", {"thresholding": True, "sample_max_value": 2.0}),
        ("DDPMScheduler", {"clip_sample_range": 2.0}),
        ("DDPMScheduler", {"thresholding": True, "prediction_type": "sample"}),
        ("EulerDiscreteScheduler", {}),
        ("EulerDiscreteScheduler", {"prediction_type": "v_prediction"}),
        ("EulerAncestralDiscreteScheduler", {"prediction_type": "v_prediction"}),
        ("HeunDiscreteScheduler", {"clip_sample": True}),
        ("HeunDiscreteScheduler", {"prediction_type": "v_prediction"}),
        ("LMSDiscreteScheduler", {"prediction_type": "v_prediction"}),
        ("KDPM2DiscreteScheduler", {"prediction_type": "v_prediction"}),
        ("KDPM2AncestralDiscreteScheduler", {}),
    ],
)
def test_predict_x0_is_the_schedulers_own_prediction(name: str, config: dict[str, Any]) -> None:
    scheduler = getattr(diffusers, name)(**config)
    scheduler.set_timesteps(STEPS)
    sample = noise_of()
    for call in range(len(scheduler.timesteps)):
        output = noise_of(seed=call)
        predicted = predict_x0(scheduler, call, output, sample)
        result = step(scheduler, call, output, sample)
        torch.testing.assert_close(predicted, result.pred_original_sample, atol=1e-4, rtol=1e-4)
        sample = result.prev_sample


def test_predict_x0_leaves_learned_variance_out_and_keeps_the_samples_dtype() -> None:
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", clip_sample=False)
    scheduler.set_timesteps(STEPS)
    output, sample = noise_of(seed=1), noise_of(seed=2)
    with_variance = torch.cat([output, noise_of(seed=3)], dim=1)
    assert torch.equal(predict_x0(scheduler, 3, with_variance, sample), predict_x0(scheduler, 3, output, sample))
    assert predict_x0(scheduler, 3, output.half(), sample.half()).dtype == torch.float16


def test_settings_of_another_class_in_a_config_are_ignored() -> None:
    """Configs keep the keys of the class they came from."""
    scheduler = diffusers.PNDMScheduler.from_config(diffusers.DDIMScheduler(clip_sample=True).config)
    scheduler.set_timesteps(STEPS)
    assert scheduler.config["clip_sample"] is True
    assert predict_x0(scheduler, 0, noise_of(), 10 * noise_of(seed=1)).abs().max() > 1


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("steps", [4, 5, 20])
def test_calls_per_step_add_up_to_the_timesteps(case: str, steps: int) -> None:
    scheduler = make(case, steps)
    calls = calls_per_step(scheduler, steps, len(scheduler.timesteps))
    assert len(calls) == steps
    with pytest.raises(InputError, match=r"use another number of steps"):
        calls_per_step(scheduler, steps, len(scheduler.timesteps) + 1)


@pytest.mark.parametrize(
    ("case", "steps", "expected"),
    [
        ("ddim", 3, (1, 1, 1)),
        ("pndm", 1, (1,)),
        ("pndm", 2, (2, 1)),
        ("pndm", 4, (2, 1, 1, 1)),
        ("pndm prk", 5, (4, 4, 4, 1, 1)),
        ("heun", 1, (1,)),
        ("heun", 3, (2, 2, 1)),
        ("kdpm2", 3, (2, 2, 1)),
        ("flow heun", 4, (2, 2, 2, 1)),
        ("dpm++ 2s", 4, (1, 1, 1, 1)),
    ],
)
def test_calls_per_step(case: str, steps: int, expected: tuple[int, ...]) -> None:
    scheduler = make(case, steps)
    assert calls_per_step(scheduler, steps, len(scheduler.timesteps)) == expected


def denoise_across(
    scheduler: Any, kind: str, after: tuple[int, ...], sizes: tuple[tuple[int, int], ...], point: Tensor, first: Tensor
) -> list[tuple[int, Tensor, Tensor]]:
    """Denoise a single-point distribution exactly, changing size after some steps.

    Returns the samples entering each call after the last change with the noise in them then, and the last sample.
    """
    torch.manual_seed(3)
    calls = calls_per_step(scheduler, STEPS, len(scheduler.timesteps))
    ends = {sum(calls[: index + 1]) - 1: size for index, size in zip(after, sizes[1:], strict=True)}
    fresh = torch.Generator().manual_seed(4)
    signal, noise_level = level(scheduler, 0)
    noise = shrink_noise(first, sizes[0])
    sample = signal * point + noise_level * noise
    seen: list[tuple[int, Tensor, Tensor]] = []
    for call in range(len(scheduler.timesteps)):
        signal, noise_level = level(scheduler, call)
        output = implied_output(scheduler, call, point, (sample - signal * point) / noise_level)
        following = step(scheduler, call, output, sample).prev_sample
        if call in ends:
            size = ends[call]
            shape = (*sample.shape[:-2], *size)
            drawn = torch.randn(shape, generator=fresh)
            following, x0, noise = hand_over(kind, scheduler, call, output, sample, following, size, drawn.clone, first)
            restart_history(scheduler, call, partial(resize, size=size), x0, noise)
        sample = following
        if call >= max(ends, default=0):
            seen.append((call + 1, sample, noise))
    return seen


@pytest.mark.parametrize("kind", HANDOVERS)
@pytest.mark.parametrize("case", CASES)
def test_exact_denoising_crosses_a_change_of_size_and_ends_at_the_point(case: str, kind: str) -> None:
    point = torch.tensor([-0.8, 0.1, 0.4, 1.5]).view(1, 4, 1, 1)
    # After the first step, between the steps of a singlestep solver, with a full history, before the last step.
    for after in (0, 1, 3, STEPS - 2):
        scheduler = make(case)
        (*_, (call, end, _)) = denoise_across(scheduler, kind, (after,), (LOW, FULL), point, noise_of())
        signal, noise_level = level(scheduler, call)
        assert end.shape == (2, 4, *FULL)
        # What remains is the end's own noise: none but where the schedule does not go to zero. The solvers
        # multiply by sigmas of at most 15 in float32; LMS integrates to a relative error of 1e-4.
        bound = 6 * noise_level + 2e-3
        if case in INEXACT:
            bound += 2 * deviation_without_a_change_of_size(case, point)
        assert (end - signal * point).abs().max() < bound, after


def deviation_without_a_change_of_size(case: str, point: Tensor) -> float:
    scheduler = make(case)
    (*_, (call, end, _)) = denoise_across(scheduler, "", (), (FULL,), point, noise_of())
    return float((end - level(scheduler, call)[0] * point).abs().max())


@pytest.mark.parametrize("case", DETERMINISTIC)
def test_noise_matched_continues_on_the_line_a_full_size_run_takes(case: str) -> None:
    """Through two changes of size: every later sample is that of the point and the first noise, as at full size."""
    point = torch.tensor([-0.8, 0.1, 0.4, 1.5]).view(1, 4, 1, 1)
    scheduler, first = make(case), noise_of()
    for call, sample, noise in denoise_across(scheduler, "noise_matched", (1, 4), (LOW, MIDDLE, FULL), point, first):
        signal, noise_level = level(scheduler, call)
        torch.testing.assert_close(noise, first, atol=5e-3, rtol=0)
        # Relative to the scale of the latents; 1e-4 of it per step is LMS's integration error.
        torch.testing.assert_close(sample, signal * point + noise_level * first, atol=2e-3 * (1 + noise_level), rtol=0)


@pytest.mark.parametrize("case", DETERMINISTIC)
def test_renoise_restarts_history_on_the_line_to_the_fresh_noise(case: str) -> None:
    point = torch.tensor([-0.8, 0.1, 0.4, 1.5]).view(1, 4, 1, 1)
    scheduler = make(case)
    for call, sample, noise in denoise_across(scheduler, "renoise", (4,), (LOW, FULL), point, noise_of()):
        signal, noise_level = level(scheduler, call)
        torch.testing.assert_close(sample, signal * point + noise_level * noise, atol=2e-3 * (1 + noise_level), rtol=0)


@pytest.mark.parametrize("case", [*DETERMINISTIC, "pndm v"])
def test_restarted_history_is_the_one_of_a_straight_trajectory(case: str) -> None:
    """At an unchanged size, and with outputs of one x0 and noise, nothing changes."""
    x0, noise = 0.5 * noise_of(seed=1), noise_of(seed=2)
    scheduler = make(case)
    calls = calls_per_step(scheduler, STEPS, len(scheduler.timesteps))
    ends = [sum(calls[: index + 1]) - 1 for index in range(STEPS)]
    for call in range(len(scheduler.timesteps) - 1):
        signal, noise_level = level(scheduler, call)
        output = implied_output(scheduler, call, x0, noise)
        step(scheduler, call, output, signal * x0 + noise_level * noise)
        if call not in ends:
            continue
        before = history(scheduler)
        restart_history(scheduler, call, lambda kept: kept, x0, noise)
        for old, new in zip(before, history(scheduler), strict=True):
            torch.testing.assert_close(new, old, atol=2e-3, rtol=1e-3)
            assert new.dtype == old.dtype


def history(scheduler: Any) -> list[Tensor]:
    kept: list[Tensor] = []
    for name in ("ets", "derivatives", "model_outputs"):
        kept += [entry for entry in getattr(scheduler, name, []) if entry is not None]
    if isinstance(scheduler, diffusers.DPMSolverSinglestepScheduler):
        kept.append(scheduler.sample)
    return kept


def test_check_scheduler_names_what_is_supported() -> None:
    for case in CASES:
        check_scheduler(make(case))
    with pytest.raises(InputError, match=r"IPNDMScheduler is not supported; supported schedulers: DDIMScheduler, "):
        check_scheduler(diffusers.IPNDMScheduler())
    with pytest.raises(InputError, match=r"'sample' is not supported; PNDMScheduler supports epsilon, v_prediction"):
        check_scheduler(diffusers.PNDMScheduler(prediction_type="sample"))
    with pytest.raises(InputError, match=r"use_flow_sigmas=True goes with"):
        check_scheduler(diffusers.UniPCMultistepScheduler(use_flow_sigmas=True))
    with pytest.raises(InputError, match=r"invert_sigmas"):
        check_scheduler(diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True))


@pytest.mark.parametrize("case", CASES)
def test_is_flow(case: str) -> None:
    assert is_flow(make(case)) == ("flow" in case)


@pytest.mark.parametrize("name", sorted({name for name, _ in CASES.values() if not name.startswith("Flow")}))
@pytest.mark.parametrize("current", ["ddim", "pndm v", "dpm++ 2m"])
def test_make_scheduler_keeps_the_noise_schedule(current: str, name: str) -> None:
    before = make(current)
    made = make_scheduler(before, name, {})
    assert type(made).__name__ == name
    assert prediction_type(made) == prediction_type(before)
    assert torch.equal(made.alphas_cumprod, before.alphas_cumprod)


@pytest.mark.parametrize("current", ["flow euler", "dpm++ flow", "flow heun"])
@pytest.mark.parametrize(
    "name",
    [
        "FlowMatchEulerDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
        "DEISMultistepScheduler",
    ],
)
def test_make_scheduler_keeps_a_flows_shift(current: str, name: str) -> None:
    made = make_scheduler(make(current), name, {})
    assert is_flow(made)
    made.set_timesteps(STEPS)
    # Not equal: classes round the ends of the schedule differently. Without the shift, the middle is at 0.5.
    middle = sum(calls_per_step(made, STEPS, len(made.timesteps))[: STEPS // 2])
    assert level(made, middle)[1] == pytest.approx(0.75, abs=0.06)


def test_make_scheduler_takes_settings() -> None:
    made = make_scheduler(make("ddim"), "DPMSolverMultistepScheduler", {"use_karras_sigmas": True, "solver_order": 3})
    assert made.config.use_karras_sigmas
    assert made.config.solver_order == 3


@pytest.mark.parametrize(
    ("current", "name", "config", "message"),
    [
        ("ddim", "EulerDiscrete", {}, r"not supported; did you mean 'EulerDiscreteScheduler'\?"),
        ("ddim", "IPNDMScheduler", {}, r"'IPNDMScheduler' is not supported"),
        ("ddim", "EulerDiscreteScheduler", {"use_karas_sigmas": True}, r"did you mean 'use_karras_sigmas'\?"),
        ("ddim", "FlowMatchEulerDiscreteScheduler", {}, r"solves flow models, this model's DDIMScheduler is for diff"),
        ("flow euler", "DDIMScheduler", {}, r"solves diffusion models, .* is for flow"),
        ("ddim", "UniPCMultistepScheduler", {"use_flow_sigmas": True}, r"use_flow_sigmas=True goes with"),
        ("ddim", "DDPMScheduler", {"prediction_type": "v_prediction"}, r"this model predicts 'epsilon'"),
        ("ddim", "DDIMScheduler", {"beta_schedule": "cubic"}, r"refuses these settings"),
        ("ddim", "HeunDiscreteScheduler", {"use_karras_sigmas": True, "use_beta_sigmas": True}, r"Only one of"),
    ],
)
def test_make_scheduler_refuses(current: str, name: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        make_scheduler(make(current), name, config)


def test_make_scheduler_refuses_a_class_that_lacks_what_shapes_the_schedule() -> None:
    zero_snr = diffusers.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    with pytest.raises(PolicyError, match=r"has no setting 'rescale_betas_zero_snr'"):
        make_scheduler(zero_snr, "PNDMScheduler", {})
    with pytest.raises(PolicyError, match=r"has no setting 'use_dynamic_shifting'"):
        flow = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
        make_scheduler(flow, "FlowMatchHeunDiscreteScheduler", {})
    with pytest.raises(InputError, match=r"IPNDMScheduler is not supported"):
        make_scheduler(diffusers.IPNDMScheduler(), "DDIMScheduler", {})


def test_what_a_class_takes_by_default_is_not_what_the_model_was_trained_with() -> None:
    """Classes differ in their defaults, which a config does not carry over."""
    lcm = diffusers.LCMScheduler(num_train_timesteps=500)
    for name in ("DDIMScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler"):
        assert torch.equal(make_scheduler(lcm, name, {}).alphas_cumprod, lcm.alphas_cumprod)
    for current, clips in ((lcm, False), (make("euler"), False), (diffusers.DDPMScheduler(), True)):
        for name in ("DDIMScheduler", "HeunDiscreteScheduler"):
            assert make_scheduler(current, name, {}).config.clip_sample is clips
    assert make_scheduler(make("euler"), "DDIMScheduler", {"clip_sample": True}).config.clip_sample
    # Of a class that never clips, its config may say what the model's first did.
    foreign = diffusers.PNDMScheduler.from_config(diffusers.DDIMScheduler(clip_sample=True).config)
    assert make_scheduler(foreign, "DDIMScheduler", {}).config.clip_sample


def test_what_a_pipeline_computes_a_flows_shift_from_stays() -> None:
    shifts = {"base_image_seq_len": 16, "max_image_seq_len": 1024, "base_shift": 0.3, "max_shift": 0.9}
    flow = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, **shifts)
    for name in ("UniPCMultistepScheduler", "DPMSolverMultistepScheduler"):
        made = make_scheduler(flow, name, {})
        assert {key: made.config.get(key) for key in shifts} == shifts
        assert {key: make_scheduler(made, type(flow).__name__, {}).config[key] for key in shifts} == shifts


@pytest.mark.parametrize(
    ("config", "key"), [({"timestep_type": "continuous"}, "timestep_type"), ({"sigma_max": 80.0}, "sigma_max")]
)
def test_make_scheduler_refuses_a_class_that_cannot_place_its_noise_levels_likewise(
    config: dict[str, Any], key: str
) -> None:
    euler = diffusers.EulerDiscreteScheduler(prediction_type="v_prediction", **config)
    assert make_scheduler(euler, "EulerDiscreteScheduler", {}).config[key] == config[key]
    with pytest.raises(PolicyError, match=f"it has no setting '{key}'"):
        make_scheduler(euler, "DDIMScheduler", {})


def test_with_spacing() -> None:
    euler = make("euler")
    trailing = with_spacing(euler, "trailing")
    trailing.set_timesteps(4)
    assert [float(t) for t in trailing.timesteps] == [999.0, 749.0, 499.0, 249.0]
    karras = with_spacing(trailing, "karras")
    assert karras.config.use_karras_sigmas
    beta = with_spacing(karras, "beta")
    assert beta.config.use_beta_sigmas
    assert not beta.config.use_karras_sigmas
    back = with_spacing(beta, "leading")
    assert not back.config.use_beta_sigmas
    assert back.config.timestep_spacing == "leading"
    assert euler.config.timestep_spacing == "linspace"
    assert with_spacing(make("flow euler"), "exponential").config.use_exponential_sigmas


@pytest.mark.parametrize(
    ("case", "name", "message"),
    [
        ("euler", "karas", r"'karas' is unknown; did you mean 'karras'\?"),
        ("ddim", "karras", r"DDIMScheduler has no 'karras' spacing here; it has leading, linspace, trailing"),
        ("dpm++ 2s", "trailing", r"it has karras, exponential, beta"),
        ("flow euler", "trailing", r"it has karras, exponential, beta"),
        ("flow heun", "karras", r"it has only its own"),
        ("dpm++ flow", "karras", r"it has only its own"),
    ],
)
def test_with_spacing_refuses(case: str, name: str, message: str) -> None:
    with pytest.raises(PolicyError, match=message):
        with_spacing(make(case), name)


@pytest.mark.parametrize(
    ("case", "timesteps", "sigmas"),
    [
        ("ddim", False, False),
        ("ddpm", True, False),
        ("pndm", False, False),
        ("lcm", True, False),
        ("euler", True, True),
        ("heun", True, False),
        ("heun karras", False, False),
        ("dpm++ 2m", True, False),
        ("unipc", False, False),
        ("unipc flow", False, True),
        ("flow euler", True, True),
        ("flow euler karras", False, False),
        ("flow heun", False, False),
    ],
)
def test_explicit(case: str, timesteps: bool, sigmas: bool) -> None:
    scheduler = make(case)
    scheduler.set_timesteps = lambda: None  # the runtime replaces the method of the instance
    assert (explicit(scheduler, "timesteps"), explicit(scheduler, "sigmas")) == (timesteps, sigmas)


@pytest.mark.parametrize("name", sorted(SOLVERS))
@pytest.mark.parametrize(
    "own",
    [
        "DDIMScheduler",
        "PNDMScheduler",
        "EulerDiscreteScheduler",
        "DDPMScheduler",
        "LCMScheduler",
        "FlowMatchEulerDiscreteScheduler",
    ],
)
def test_make_scheduler_means_the_same_once_a_pipeline_is_saved(own: str, name: str, tmp_path: Path) -> None:
    cls = getattr(diffusers, own)
    fresh = cls()
    # A file spells out what the class took for granted.
    fresh.save_pretrained(tmp_path)
    saved = cls.from_pretrained(tmp_path)
    try:
        expected = make_scheduler(fresh, name, {})
    except InputError as error:
        with pytest.raises(type(error), match=re.escape(str(error))):
            make_scheduler(saved, name, {})
        return
    made = make_scheduler(saved, name, {})
    settings = parameters(type(made))
    assert {key: made.config[key] for key in settings} == {key: expected.config[key] for key in settings}
