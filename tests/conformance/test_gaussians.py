"""Whether a solver that is accepted is right: a denoiser that knows how its data are distributed makes such data.

The denoiser is the exact one of data of N(0, SPREAD ** 2), which it computes from the noise level that it is told. It
makes data of that spread only where the pipeline and the solver agree on how noise is scaled and told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
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
from autotune.runtime.schedulers import SOLVERS
from autotune.runtime.substitutes import make_scheduler
from tests.support.builders import FAMILIES

SPREAD = 0.3
STEPS = 30
# How far the solvers themselves are off: noise between two steps as of data without any spread, one large last step, a
# solver of other models.
OFF = {
    "DDPMScheduler": 0.3,
    "EulerAncestralDiscreteScheduler": 0.3,
    "DPMSolverSinglestepScheduler": 0.2,
    "LCMScheduler": 0.5,
}


@cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make()


def _diffusion(name: str, sample: Tensor, timestep: Any) -> Tensor:
    """The noise to be expected in a sample at a timestep of the model's training."""
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
def gaussian(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The pipeline with such a denoiser."""
    pipe = pipeline(name)
    with monkeypatch.context() as patch:
        patch.setattr(getattr(pipe, FAMILIES[name].denoiser), "forward", GAUSSIANS[name])
        yield pipe


def spread(name: str, **options: Any) -> float:
    """Of what the loop of the pipeline ends with."""
    pipe, arguments = pipeline(name), FAMILIES[name].arguments(batch=4, guidance=False) | options
    if not options:
        del arguments["num_inference_steps"]
    latents: list[Tensor] = []
    if name != "dit":
        latents.append(FAMILIES[name].run(pipe, **arguments))
    else:
        decode = pipe.vae.decode

        def noted(given: Tensor) -> Any:
            latents.append(given * pipe.vae.config.scaling_factor)
            return decode(given)

        pipe.vae.decode = noted
        try:
            pipe(**arguments)
        finally:
            del pipe.vae.decode
    # Pixels are returned as 0 to 1.
    return float(latents[0].std()) * (2 if name in ("ddpm", "ddim") else 1)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", GAUSSIANS)
def test_data_are_spread_as_the_denoiser_knows_them(name: str, solver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(steps=STEPS, scheduler=SchedulerChoice(name=solver))
    with gaussian(name, monkeypatch) as pipe, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            with applied(pipe, policy):
                found = spread(name)
        except PolicyError:
            pytest.skip("refused")
    assert found == pytest.approx(SPREAD, rel=OFF.get(solver, 0.15))


# Refused although the plain pipeline runs with the scheduler in its place: it makes something else.
WRONG = [
    ("ddpm", "EulerDiscreteScheduler", 30),
    ("ddpm", "EulerAncestralDiscreteScheduler", 30),
    ("dit", "EulerDiscreteScheduler", 30),
    ("dit", "HeunDiscreteScheduler", 30),
    ("dit", "KDPM2DiscreteScheduler", 30),
    ("dit", "LMSDiscreteScheduler", 30),
    ("sd3", "DEISMultistepScheduler", 4),
    ("flux", "DEISMultistepScheduler", 4),
]


@pytest.mark.parametrize(("name", "solver", "steps"), WRONG)
def test_what_is_refused_makes_other_data(name: str, solver: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(steps=steps, scheduler=SchedulerChoice(name=solver))
    with gaussian(name, monkeypatch) as pipe:
        with pytest.raises(PolicyError, match="noise"):
            apply_policy(pipe, policy)
        own, pipe.scheduler = pipe.scheduler, make_scheduler(pipe.scheduler, solver, {})
        try:
            assert not 0.8 * SPREAD < spread(name, num_inference_steps=steps) < 1.2 * SPREAD
        finally:
            pipe.scheduler = own
