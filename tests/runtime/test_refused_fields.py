"""What a policy says and a pipeline cannot follow is refused in one sentence, where possible before the call."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest

from autotune.core.errors import InputError, PolicyError
from autotune.cost import Pricer
from autotune.policy import Guidance, Policy, ResolutionStage
from autotune.runtime import applied, apply_policy
from autotune.runtime.apply import session_of
from tests.support.builders import FAMILIES

FIELDS: dict[str, Any] = {
    "resolution": {"resolution": (ResolutionStage(scale=0.5, until_step=2),)},
    "guidance": {"guidance": Guidance(stop_step=2)},
}
REFUSING = [(name, field) for name, family in FAMILIES.items() for field in sorted(family.refuses)]


@pytest.mark.parametrize(("name", "field"), REFUSING)
def test_a_field_that_a_pipeline_cannot_follow_is_refused(name: str, field: str) -> None:
    pipe, policy = FAMILIES[name].make(), Policy(steps=4, **FIELDS[field])
    said = f"^{type(pipe).__name__} runs under no policy with {field}: .*; leave {field} out$"
    with pytest.raises(PolicyError, match=said):
        apply_policy(pipe, policy)
    assert session_of(pipe) is None
    with pytest.raises(PolicyError, match=said):
        Pricer(pipe, *FAMILIES[name].size).price(policy)


def test_an_argument_that_no_policy_can_follow_is_refused_before_the_first_call() -> None:
    pipe, computed = FAMILIES["sd3"].make(), []
    call = FAMILIES["sd3"].arguments(steps=4, skip_guidance_layers=[0])
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: computed.append(1))
    with applied(pipe, Policy(steps=4)), pytest.raises(InputError, match="runs under no policy with skip_guidance_lay"):
        pipe(**call)
    handle.remove()
    assert not computed


def test_three_branches_are_refused_where_guidance_is_to_stop() -> None:
    """In a pipeline that nobody tested, before the denoiser computes anything."""
    family = FAMILIES["sd-img2img"]
    pipe = diffusers.StableDiffusionPAGImg2ImgPipeline(**family.make().components, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    computed: list[int] = []
    call = family.arguments(steps=4)
    with applied(pipe, Policy(steps=4, guidance=Guidance(stop_step=2)), strict=False):
        handle = pipe.unet.conv_in.register_forward_hook(lambda *_: computed.append(1))
        with pytest.raises(InputError, match="of which no policy knows the conditional ones"):
            pipe(**call)
        handle.remove()
    assert not computed
