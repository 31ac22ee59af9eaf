"""Every family: guidance in the middle, a sibling with a policy of its own, guidance that a callback turns off.

What random calls combine (:mod:`tests.conformance.test_random_calls`), one by one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests.conformance.real_calls import Scenario, check
from tests.conformance.test_contract import VARIANTS
from tests.conformance.test_random_calls import NAMES

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


@pytest.mark.parametrize("name", _cases(sorted(DECIDES)))
def test_guidance_that_is_turned_off_within_the_call(name: str) -> None:
    """Before the policy stops it; what was kept with guidance is taken without."""
    check(replace(PLAIN, name=name, cutoff=1, compute=frozenset(), interval=(1, 4)))
