"""What is said of how pipelines call their schedulers, against what they are seen to do."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import pytest
from torch import Tensor

from autotune.core.errors import PolicyError
from autotune.pipelines.families import SchedulerCalls, family_of, scheduler_calls, supported
from autotune.pipelines.families.scheduling import SCHEDULER_CALLS
from autotune.policy import Policy, SchedulerChoice
from autotune.runtime import apply_policy
from tests.support.builders import FAMILIES

STEPS = 3
# Nobody's defaults.
SHIFTS = {"base_image_seq_len": 16, "max_image_seq_len": 1024, "base_shift": 0.3, "max_shift": 0.9}
FLOWS = [name for name, tiny in FAMILIES.items() if tiny.scheduler == "flow"]
FROM_PICTURES = [name for name, tiny in FAMILIES.items() if tiny.strength is not None]


@functools.cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make()


@dataclass
class Seen:
    """What a scheduler is asked for during a call."""

    set_timesteps: dict[str, Any] = field(default_factory=dict)
    step: frozenset[str] = frozenset()
    channels: int = 0
    unpacks: int = 1
    scales_noise: bool = False
    scales_input: bool = False
    sets_begin: bool = False


class _Returned(tuple[Any, ...]):
    """What a step returns, and how it is read."""

    seen: Seen

    def __iter__(self) -> Iterator[Any]:
        self.seen.unpacks = len(self)
        return super().__iter__()


def watched(scheduler: Any, seen: Seen) -> Any:
    """The scheduler, noting what it is asked for."""
    plain = type(scheduler)

    class Watched(plain):  # type: ignore[misc, valid-type]
        @property
        def init_noise_sigma(self) -> Any:
            seen.scales_noise = True
            return (
                vars(self)["init_noise_sigma"]
                if "init_noise_sigma" in vars(self)
                else plain.init_noise_sigma.fget(self)
            )

        @functools.wraps(plain.set_timesteps)
        def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
            positional = {"num_inference_steps": args[0]} if args else {}
            seen.set_timesteps = positional | {key: value for key, value in kwargs.items() if key != "device"}
            plain.set_timesteps(self, *args, **kwargs)

        @functools.wraps(plain.step)
        def step(self, output: Tensor, timestep: Any, sample: Tensor, **kwargs: Any) -> Any:
            seen.step = frozenset(kwargs) - {"return_dict"}
            seen.channels = output.shape[1] // sample.shape[1] if sample.ndim == 4 else 1
            result = plain.step(self, output, timestep, sample, **kwargs)
            if not isinstance(result, tuple):
                return result
            returned = _Returned(result)
            returned.seen = seen
            return returned

    # Pipelines ask whether there are these methods.
    if hasattr(plain, "set_begin_index"):

        def set_begin_index(self: Any, begin_index: int = 0) -> None:
            seen.sets_begin = True
            plain.set_begin_index(self, begin_index)

        Watched.set_begin_index = set_begin_index  # type: ignore[attr-defined]
    if hasattr(plain, "scale_model_input"):

        def scale_model_input(self: Any, sample: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            seen.scales_input = True
            scaled: Tensor = plain.scale_model_input(self, sample, *args, **kwargs)
            return scaled

        Watched.scale_model_input = scale_model_input  # type: ignore[attr-defined]
    scheduler.__class__ = Watched
    return scheduler


def see(name: str, scheduler: Any, **overrides: Any) -> Seen:
    pipe, seen = pipeline(name), Seen()
    own = pipe.scheduler
    pipe.scheduler = watched(scheduler, seen)
    try:
        FAMILIES[name].run(pipe, **FAMILIES[name].arguments(**({"steps": STEPS} | overrides)))
    finally:
        pipe.scheduler = own
    return seen


def said(name: str, scheduler: Any, **overrides: Any) -> Mapping[str, Any]:
    pipe, arguments = pipeline(name), FAMILIES[name].arguments(**overrides)
    calls, family = calls_of(name), family_of(pipe)
    height, width = arguments.get("height", FAMILIES[name].size[0]), arguments.get("width", FAMILIES[name].size[1])
    size = family.latent_size(pipe, height, width, FAMILIES[name].frames, arguments)
    return calls.set_timesteps(scheduler, STEPS, family.image_tokens(pipe, size))


def calls_of(name: str) -> SchedulerCalls:
    calls = scheduler_calls(pipeline(name))
    assert calls is not None
    return calls


def own_of(name: str, **changes: Any) -> Any:
    scheduler = pipeline(name).scheduler
    return type(scheduler).from_config(scheduler.config, **changes)


def same_arguments(seen: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    if seen.keys() != expected.keys():
        return False
    return all(
        value is expected[key] if value is None else np.allclose(value, expected[key], rtol=1e-6)
        for key, value in seen.items()
    )


LISTED = [name for name in FAMILIES if name != "generic"]


def test_every_listed_pipeline_is_described() -> None:
    assert set(SCHEDULER_CALLS) == {name for name, _, _ in supported()} - {"any other"}
    assert {type(pipeline(name)).__name__ for name in LISTED} == set(SCHEDULER_CALLS)
    assert scheduler_calls(pipeline("generic")) is None


def test_a_class_with_a_call_of_its_own_is_not_described() -> None:
    class Derived(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
        pass

    class Rewritten(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
        def __call__(self) -> None: ...

    components = pipeline("sd").components
    assert scheduler_calls(Derived(**components, requires_safety_checker=False)) is calls_of("sd")
    assert scheduler_calls(Rewritten(**components, requires_safety_checker=False)) is None


@pytest.mark.parametrize("name", LISTED)
def test_the_own_scheduler_is_called_as_described(name: str) -> None:
    calls, scheduler = calls_of(name), own_of(name)
    taken = frozenset(inspect.signature(scheduler.step).parameters)
    seen = see(name, scheduler)
    assert same_arguments(seen.set_timesteps, said(name, scheduler))
    assert seen.step == calls.step_arguments(taken)
    assert seen.unpacks == calls.unpacks
    assert seen.channels == 1
    # Where a picture is given, the scheduler adds the noise.
    assert (seen.scales_noise or FAMILIES[name].strength is not None) == calls.scales_noise
    if hasattr(scheduler, "set_begin_index"):
        assert seen.sets_begin == calls.sets_begin
    if hasattr(scheduler, "scale_model_input"):
        assert seen.scales_input == calls.scales_input


# Those whose own scheduler has no begin to set.
@pytest.mark.parametrize("name", ["sd", "sd-img2img", "sd-inpaint", "ddpm", "dit", "hunyuandit"])
def test_where_a_multistep_solver_begins_is_set_as_described(name: str) -> None:
    other = diffusers.DPMSolverMultistepScheduler.from_config(pipeline(name).scheduler.config)
    assert see(name, other).sets_begin == calls_of(name).sets_begin


@pytest.mark.parametrize("name", [name for name in FLOWS if name not in ("sana", "wan")])
@pytest.mark.parametrize("dynamic", [True, False])
@pytest.mark.parametrize("other_size", [False, True])
def test_a_flow_is_shifted_as_described(name: str, dynamic: bool, other_size: bool) -> None:
    size = FAMILIES[name].other_size if other_size else FAMILIES[name].size
    if size is None:
        pytest.skip("one size")
    overrides = {"height": size[0], "width": size[1]}
    own = own_of(name, use_dynamic_shifting=dynamic, **SHIFTS)
    if calls_of(name).mu == "never" and dynamic:
        with pytest.raises(ValueError, match="mu"):
            see(name, own, **overrides)
        return
    assert same_arguments(see(name, own, **overrides).set_timesteps, said(name, own, **overrides))


@pytest.mark.parametrize("name", [name for name in FROM_PICTURES if name in FLOWS])
def test_a_flow_from_a_picture_keeps_to_schedulers_that_mix_noise(name: str) -> None:
    other = SchedulerChoice(name="UniPCMultistepScheduler", config={})
    with pytest.raises(PolicyError, match="has noise mixed into a picture by scale_noise, which this solver does not"):
        apply_policy(pipeline(name), Policy(steps=STEPS, scheduler=other))


# Z-Image and Lumina2 pass sigmas to schedulers that take none, CogView4 timesteps.
_OTHERS = [name for name in FLOWS if name not in ("sana", "wan", "lumina2", "z-image", "cogview4", *FROM_PICTURES)]


@pytest.mark.parametrize("name", _OTHERS)
def test_another_scheduler_of_a_flow_is_called_as_described(name: str) -> None:
    other = diffusers.UniPCMultistepScheduler(
        use_flow_sigmas=True, prediction_type="flow_prediction", use_dynamic_shifting=calls_of(name).mu != "never"
    )
    assert same_arguments(see(name, other).set_timesteps, said(name, other))


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_a_learned_variance_reaches_the_scheduler_where_it_is_said_to(name: str) -> None:
    tiny = FAMILIES[name]
    pipe, seen = tiny.make(), Seen()
    pipe.unet = type(pipe.unet).from_config(pipe.unet.config, out_channels=6)
    pipe.scheduler = watched(diffusers.DDPMScheduler(variance_type="learned_range"), seen)
    if name == "ddim":
        with pytest.raises(TypeError):
            pipe(**tiny.arguments(steps=STEPS))
    else:
        pipe(**tiny.arguments(steps=STEPS))
        assert seen.channels == 2
    assert not calls_of(name).splits_variance


@pytest.mark.parametrize("name", [name for name in LISTED if name not in ("ddpm", "ddim")])
def test_a_learned_variance_is_taken_off_by_all_others(name: str) -> None:
    assert calls_of(name).splits_variance
    config = getattr(pipeline(name), FAMILIES[name].denoiser).config
    doubled = getattr(config, "out_channels", 4) == 2 * getattr(config, "in_channels", 4)
    assert doubled == (name.startswith("pixart") or name == "dit")
