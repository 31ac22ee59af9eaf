"""Pipelines that share their components: a policy acts in the calls of the one that it was applied to.

Of :mod:`autotune.runtime.entry` and :mod:`autotune.runtime.runtime`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AutoPipelineForImage2Image, StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from torch import Tensor

from autotune.core.errors import InputError
from autotune.policy import Policy, SchedulerChoice
from autotune.runtime import applied, apply_policy, remove_policy
from autotune.runtime.apply import session_of
from tests.support.builders import FAMILIES
from tests.support.ecosystem import CASES, NAMES, denoiser_of, expected, make, plain, policy_of, run
from tests.support.techniques import STEPS, structure_of, technique
from tests.support.watch import traces

each_pipeline = pytest.mark.parametrize("name", NAMES)

OTHERS: dict[str, Callable[[Any], Any]] = {
    "from_pipe": AutoPipelineForImage2Image.from_pipe,
    "of components": lambda pipe: StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False),
    "inpainting": lambda pipe: StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False),
}


def twin(pipe: Any) -> Any:
    """Another pipeline object of the same class and components."""
    other = type(pipe)(**pipe.components, **({"requires_safety_checker": False} if hasattr(pipe, "unet") else {}))
    other.set_progress_bar_config(disable=True)
    return other


def run_other(pipe: Any, **options: Any) -> Tensor:
    """A call of an image-to-image or inpainting sibling with the steps of its own class's default, or others."""
    pipe.set_progress_bar_config(disable=True)
    family = FAMILIES["sd-inpaint" if "Inpaint" in type(pipe).__name__ else "sd-img2img"]
    return family.run(pipe, **family.arguments(**options))


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("first", ["policy", "sibling"])
def test_a_sibling_is_plain_to_the_bit(kind: str, first: str) -> None:
    want = run_other(OTHERS[kind](make("sd")), steps=7)
    pipe = make("sd")
    sibling = OTHERS[kind](pipe) if first == "sibling" else None
    apply_policy(pipe, policy_of("sd", pipe))
    sibling = sibling or OTHERS[kind](pipe)
    assert session_of(sibling) is None
    assert torch.equal(run_other(sibling, steps=7), want)
    assert torch.equal(run("sd", pipe), expected("sd"))
    assert torch.equal(run_other(sibling, steps=7), want)
    remove_policy(pipe)
    assert torch.equal(run_other(sibling, steps=7), want)
    assert torch.equal(run("sd", pipe), plain("sd"))


def test_a_sibling_made_under_another_solver_has_the_pipelines_own() -> None:
    pipe = make("sd")
    want = run_other(OTHERS["from_pipe"](pipe), steps=7)
    apply_policy(pipe, Policy(steps=STEPS, scheduler=SchedulerChoice(name="DPMSolverMultistepScheduler")))
    run("sd", pipe)
    assert torch.equal(run_other(OTHERS["from_pipe"](pipe), steps=7), want)


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("order", ["first", "second"])
def test_both_may_have_policies_of_their_own(kind: str, order: str) -> None:
    pipe = make("sd")
    sibling = OTHERS[kind](pipe)
    own = technique("reuse nearly all", FAMILIES["sd"], structure_of(FAMILIES["sd"], pipe))
    assert own is not None
    with applied(sibling, own):
        alone = run_other(sibling, steps=STEPS)
    want_plain = run_other(sibling, steps=7)
    one, two = (pipe, policy_of("sd", pipe)), (sibling, own)
    for each, policy in (one, two) if order == "first" else (two, one):
        apply_policy(each, policy)
    for _ in range(2):
        assert torch.equal(run("sd", pipe), expected("sd"))
        assert torch.equal(run_other(sibling, steps=STEPS), alone)
    # The policy of the other stays, whichever was applied first.
    remove_policy(pipe)
    assert torch.equal(run("sd", pipe), plain("sd"))
    assert torch.equal(run_other(sibling, steps=STEPS), alone)
    apply_policy(pipe, policy_of("sd", pipe))
    remove_policy(sibling)
    assert torch.equal(run_other(sibling, steps=7), want_plain)
    assert torch.equal(run("sd", pipe), expected("sd"))


@each_pipeline
@pytest.mark.parametrize("removed_first", [0, 1])
def test_two_of_one_class_leave_no_trace(name: str, removed_first: int) -> None:
    pipe = make(name)
    other = twin(pipe)
    # What a pipeline leaves in itself and its denoiser is there before.
    run(name, pipe), run(name, other)
    before = traces(pipe), traces(other), type(pipe), set(vars(pipe))
    apply_policy(pipe, policy_of(name, pipe))
    apply_policy(other, policy_of(name, other, CASES[1]))
    assert torch.equal(run(name, pipe), expected(name))
    assert torch.equal(run(name, other), expected(name, CASES[1]))
    both = [pipe, other]
    remove_policy(both.pop(removed_first))
    left = both[0]
    assert torch.equal(run(name, left), expected(name, CASES[1 - removed_first]))
    remove_policy(left)
    assert (traces(pipe), traces(other), type(pipe), set(vars(pipe))) == before
    assert torch.equal(run(name, pipe), plain(name))


@each_pipeline
def test_a_sibling_called_from_a_callback_is_plain_and_disturbs_nothing(name: str) -> None:
    """It previews, say, with a scheduler of its own."""
    pipe = make(name)
    if not hasattr(pipe, "_callback_tensor_inputs"):
        pytest.skip("the pipeline takes no callback_on_step_end")
    other = twin(pipe)
    other.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    seen: list[Tensor] = []

    def preview(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(run(name, other))
        return {}

    for case in (None, CASES[1]):
        apply_policy(pipe, policy_of(name, pipe))
        if case is not None:
            apply_policy(other, policy_of(name, other, case))
        assert torch.equal(run(name, pipe, callback_on_step_end=preview), expected(name))
        assert all(torch.equal(result, plain(name) if case is None else expected(name, case)) for result in seen)
        seen.clear()
        remove_policy(pipe)
        if case is not None:
            remove_policy(other)
    assert torch.equal(run(name, pipe), plain(name))


@each_pipeline
def test_the_denoiser_by_itself_is_plain(name: str) -> None:
    pipe = make(name)
    inputs: list[tuple[Any, dict[str, Any], Any]] = []
    handle = denoiser_of(name, pipe).register_forward_hook(
        lambda module, args, kwargs, output: inputs.append((args, kwargs, output)), with_kwargs=True
    )
    run(name, pipe)
    handle.remove()
    with applied(pipe, policy_of(name, pipe)):
        for args, kwargs, output in inputs:
            again = denoiser_of(name, pipe)(*args, **kwargs)
            assert torch.equal(again[0], output[0])


def test_a_scheduler_of_ones_own_may_be_stepped_by_hand_under_a_policy() -> None:
    pipe = make("sd")
    with applied(pipe, policy_of("sd", pipe)):
        pipe.scheduler.set_timesteps(9)
        assert len(pipe.scheduler.timesteps) == 9
        assert torch.equal(run("sd", pipe), expected("sd"))


def test_a_sibling_is_refused_its_own_second_policy() -> None:
    pipe = make("sd")
    sibling = twin(pipe)
    apply_policy(sibling, policy_of("sd", sibling))
    with pytest.raises(InputError, match="already runs under a policy"):
        apply_policy(sibling, policy_of("sd", sibling))
    with pytest.raises(InputError, match="runs under no policy"):
        remove_policy(pipe)
