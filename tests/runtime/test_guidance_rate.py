"""Guidance whose last difference of the branches is reused: solvers that call twice, rescaling, forms of outputs.

Which rows and which steps, on every family, is in :mod:`tests.runtime.test_rows` and :mod:`tests.conformance`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from autotune.cost import Pricer
from autotune.policy import Guidance, Policy, ResolutionStage, SchedulerChoice
from autotune.runtime import applied
from autotune.runtime.apply import session_of
from autotune.runtime.branches import Difference, joined, parted, twice
from tests.support.builders import FAMILIES
from tests.support.by_hand import precise
from tests.support.ecosystem import make, run
from tests.support.tiny import tiny_sd

TWICE_A_STEP = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler")
SOLVERS = ("DDIMScheduler", "DPMSolverMultistepScheduler", *TWICE_A_STEP)


@contextmanager
def rows_of(module: Any) -> Iterator[list[int]]:
    """Of every call of a layer."""
    found: list[int] = []
    handle = module.register_forward_pre_hook(lambda module, args: found.append(len(args[0])))
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def reusing(unet: Any, reused: list[bool]) -> Iterator[None]:
    """Without hooks: in calls that are ``reused`` the unconditional half is made from the last difference."""
    forward, calls = unet.forward, iter(reused)
    difference = torch.zeros(())

    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal difference
        unconditional, conditional = forward(*args, **kwargs)[0].chunk(2)
        if next(calls):
            unconditional = conditional - difference
        else:
            difference = conditional - unconditional
        return (torch.cat([unconditional, conditional]),)

    called.__wrapped__ = forward  # type: ignore[attr-defined]
    unet.forward = called
    try:
        yield
    finally:
        del unet.forward


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_the_pipeline_weighs_and_rescales_what_it_is_given(solver: str, rescale: float) -> None:
    """Of two calls in a step both compute both branches, or both reuse the last call's difference."""
    guidance = Guidance(stop_step=5, compute_steps=(0, 2))
    policy = Policy(version=3, steps=5, scheduler=SchedulerChoice(name=solver), guidance=guidance)
    pipe = precise(tiny_sd())

    def call() -> Tensor:
        generator = torch.Generator().manual_seed(0)
        images = pipe("a cat", generator=generator, guidance_rescale=rescale, output_type="latent").images
        assert isinstance(images, Tensor)
        return images

    plan = Pricer(pipe).plan(policy)
    assert len(plan.steps) == (9 if solver in TWICE_A_STEP else 5)
    plainly = policy.model_copy(update={"guidance": None})
    with applied(pipe, plainly):
        plain = call()
    with reusing(pipe.unet, [plan.reuses_difference(at) for at in range(len(plan.steps))]), applied(pipe, plainly):
        expected = call()
    with applied(pipe, policy), rows_of(pipe.unet.conv_in) as rows:
        torch.testing.assert_close(call(), expected, atol=1e-5, rtol=1e-5)
    assert rows == [step.branches for step in plan.steps]
    assert not torch.allclose(plain, expected, atol=1e-3)


def test_the_difference_is_taken_anew_at_another_resolution() -> None:
    pipe = make("sd")
    stages = (ResolutionStage(scale=0.5, until_step=2),)
    guidance = Guidance(stop_step=5, compute_steps=(0,))
    held: list[Any] = []
    with applied(pipe, Policy(version=3, steps=5, resolution=stages, guidance=guidance)):
        session = session_of(pipe)
        assert session is not None
        with rows_of(pipe.unet.conv_in) as rows:
            handle = pipe.unet.conv_in.register_forward_hook(lambda *_: held.append(session.difference))
            result = run("sd", pipe)
            handle.remove()
        assert session.difference is None
    side = result.shape[-1]
    assert rows == [2, 1, 2, 1, 1]
    sides = [None if each is None else each.values[0].shape[-1] for each in held]
    assert sides == [None, side // 2, None, side, side]


@pytest.mark.parametrize("name", ["sd", "pixart-alpha", "flux", "dit", "z-image"])
def test_nothing_is_held_without_guidance(name: str) -> None:
    family, pipe = FAMILIES[name], make(name)
    policy = Policy(version=3, steps=5, guidance=Guidance(stop_step=5, compute_steps=(0, 3)))
    plain = run(name, pipe, guidance=False)
    with applied(pipe, policy):
        assert torch.equal(run(name, pipe, guidance=False), plain)
    price = Pricer(pipe, *family.size, guided=False, text_tokens=family.text_tokens).price(policy)
    assert price.cache_bytes == 0


def _outputs(rows: int) -> dict[str, tuple[Any, bool]]:
    tensor = torch.randn(2 * rows, 3, generator=torch.Generator().manual_seed(rows))
    return {
        "tensor": (tensor, False),
        "tuple": ((tensor, None), False),
        "list of rows": (list(tensor), True),
        "tuple of a list of rows": ((list(tensor),), True),
        "named": (Transformer2DModelOutput(sample=tensor), False),
        "named list of rows": (Transformer2DModelOutput(sample=list(tensor)), True),
    }


@pytest.mark.parametrize("form", _outputs(1))
@given(rows=st.integers(1, 3))
def test_outputs_of_every_form_are_parted_and_joined(form: str, rows: int) -> None:
    output, listed = _outputs(rows)[form]
    first, last = parted(output, listed=listed)
    again = joined(first, last, listed=listed)
    assert type(again) is type(output)
    _assert_equal(again, output)
    _assert_equal(parted(twice(first, listed=listed), listed=listed)[1], first)
    difference = Difference.of(last, first, rows)
    _assert_equal(difference.unconditional(last), first)


def _assert_equal(one: Any, other: Any) -> None:
    torch.testing.assert_close(_leaves(one), _leaves(other))


def _leaves(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if value is None:
        return []
    return [leaf for part in (value.values() if isinstance(value, dict) else value) for leaf in _leaves(part)]
