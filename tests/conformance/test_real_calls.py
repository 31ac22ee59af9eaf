"""Every family: guidance in the middle, a sibling with a policy of its own, guidance that a callback turns off.

What random calls combine (:mod:`tests.conformance.test_random_calls`), one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor

from autotune.runtime import apply_policy, remove_policy
from tests.conformance.real_calls import Scenario, check
from tests.conformance.test_contract import VARIANTS
from tests.conformance.test_random_calls import NAMES
from tests.support.builders import FAMILIES
from tests.support.techniques import STEPS, structure_of, technique

PLAIN = Scenario(
    name="",
    batch=2,
    guidance=True,
    units=(0.6,),
    compute=frozenset({2}),
    interval=(1, 3),
    low=None,
    cutoff=None,
    adapters=0,
    order=("policy",),
    sibling=None,
    sibling_in_callback=False,
)

# Those that decide at every step whether there is guidance, and whose callbacks may change all that has rows.
DECIDES = {
    *("sd", "sd-img2img", "sd-inpaint", "sd-inpaint-9", "lcm", "sd-controlnet"),
    *("sdxl", "sdxl-img2img", "sdxl-inpaint", "sdxl-controlnet"),
    *("sd3", "sana", "chroma", "lumina2", "wan", "z-image", "z-image-img2img", "z-image-inpaint"),
}


def _cases(names: Iterable[str]) -> list[Any]:
    return [pytest.param(name, marks=[pytest.mark.exhaustive] if name in VARIANTS else []) for name in names]


@pytest.mark.parametrize("name", _cases(NAMES))
def test_guidance_in_the_middle_beside_a_sibling_with_a_policy(name: str) -> None:
    check(replace(PLAIN, name=name, sibling=True))


@pytest.mark.parametrize("name", _cases(NAMES))
def test_guidance_every_second_step(name: str) -> None:
    """Units compute in other steps than both branches do."""
    check(replace(PLAIN, name=name, interval=(0, 4), rate=2, compute=frozenset({1})))


@pytest.mark.parametrize("name", _cases(sorted(DECIDES)))
def test_guidance_that_is_turned_off_within_the_call(name: str) -> None:
    """Before the policy stops it; what was kept with guidance is taken without."""
    check(replace(PLAIN, name=name, cutoff=1, compute=frozenset(), interval=(1, 4)))


@pytest.mark.parametrize("name", _cases(sorted(DECIDES)))
def test_guidance_every_second_step_that_is_turned_off_within_the_call(name: str) -> None:
    check(replace(PLAIN, name=name, cutoff=1, compute=frozenset(), interval=(0, 4), rate=3))


# The inpainting pipeline of Stable Diffusion 3 takes transformers of 16 or 33 channels, and the tiny one has 4.
SIBLINGS = [
    pytest.param(name, f"{name}-{task}", marks=[pytest.mark.exhaustive] if task == "inpaint" else [])
    for name in ("sdxl", "sd3", "flux", "qwen-image", "z-image")
    for task in ("img2img", "inpaint")
    if (name, task) != ("sd3", "inpaint")
]


@pytest.mark.parametrize(("name", "other"), SIBLINGS)
def test_a_sibling_of_another_class_is_plain_to_the_bit(name: str, other: str) -> None:
    """Made before the policy was applied and after; each may have a policy of its own, and loses that alone."""
    family, theirs = FAMILIES[name], FAMILIES[other]
    pipe = family.make()

    def sibling() -> Any:
        made = getattr(diffusers, theirs.pipeline).from_pipe(pipe)
        made.set_progress_bar_config(disable=True)
        return made

    def call(pipe: Any) -> Tensor:
        its = family if type(pipe).__name__ == family.pipeline else theirs
        return its.run(pipe, **its.arguments(steps=STEPS))

    before = sibling()
    plain, plain_sibling = call(pipe), call(before)
    everything = technique("everything", family, structure_of(family, pipe))
    assert everything is not None
    apply_policy(pipe, everything)
    result = call(pipe)
    assert torch.equal(call(before), plain_sibling) and torch.equal(call(sibling()), plain_sibling)
    apply_policy(before, everything)
    under = call(before)
    assert torch.equal(call(pipe), result) and not torch.equal(under, plain_sibling)
    remove_policy(pipe)
    assert torch.equal(call(pipe), plain) and torch.equal(call(before), under)
    remove_policy(before)
    assert torch.equal(call(before), plain_sibling)
