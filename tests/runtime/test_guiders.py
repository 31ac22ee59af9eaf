"""Pipelines whose guider weighs the branches: what it remembers, which guiders are refused, what is left of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import diffusers
import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from autotune.core.errors import InputError
from autotune.cost import Pricer
from autotune.pipelines.families import family_of
from autotune.policy import Guidance, Policy
from autotune.runtime import applied, apply_policy, remove_policy
from autotune.runtime.models import scale_argument
from tests.support.builders import FAMILIES
from tests.support.techniques import structure_of
from tests.support.watch import Watch

FAMILY = FAMILIES["hunyuan-image"]
STEPS = 5
QUOTING = ['red cat with "moon"']


def call(pipe: Any, **options: Any) -> Tensor:
    return FAMILY.run(pipe, **FAMILY.arguments(steps=STEPS, **options))


def guider(**settings: Any) -> Any:
    return diffusers.AdaptiveProjectedMixGuidance(**{"adaptive_projected_guidance_start_step": 1} | settings)


@pytest.mark.parametrize("momentum", [-0.5, None])
@pytest.mark.parametrize("stop", [1, 3])
def test_guidance_that_a_policy_stops_is_guidance_that_the_guider_stops(stop: int, momentum: float | None) -> None:
    """Before it projects and after; what it remembers of steps before is not added to those behind."""
    pipe = FAMILY.make()
    pipe.guider = guider(stop=stop / STEPS, adaptive_projected_guidance_momentum=momentum)
    expected = call(pipe)
    pipe.guider = guider(adaptive_projected_guidance_momentum=momentum)
    plain = call(pipe)
    with applied(pipe, Policy(steps=STEPS, guidance=Guidance(stop_step=stop))):
        assert torch.equal(call(pipe), expected)
    assert not torch.equal(plain, expected)


def test_the_pipelines_own_guider_is_left_as_it_was() -> None:
    pipe = FAMILY.make()
    plain, own = call(pipe), pipe.guider
    before = dict(vars(own))
    with applied(pipe, Policy(steps=STEPS)):
        assert torch.equal(call(pipe), plain)
        assert pipe.guider is own and vars(own) == before
        with pytest.raises(TypeError):
            call(pipe, no_such_argument=1)
        assert pipe.guider is own


def test_calls_of_a_sibling_between_two_steps_change_nothing() -> None:
    pipe = FAMILY.make()
    sibling = type(pipe)(**pipe.components)
    sibling.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    sibling.set_progress_bar_config(disable=True)
    plain = call(pipe)

    def preview(*_: Any) -> Mapping[str, Any]:
        call(sibling, seed=3)
        return {}

    with applied(pipe, Policy(steps=STEPS)):
        assert torch.equal(call(pipe, callback_on_step_end=preview), plain)


def test_the_guider_for_prompts_that_quote_is_followed_too() -> None:
    """As many FLOPs as of others: the second text is padded."""
    pipe = FAMILY.make()
    without = call(pipe, prompt=QUOTING)
    pipe.register_modules(ocr_guider=guider(guidance_scale=9.0, stop=3 / STEPS))
    expected = call(pipe, prompt=QUOTING)
    pipe.register_modules(ocr_guider=guider(guidance_scale=9.0))
    policy = Policy(steps=STEPS, guidance=Guidance(stop_step=3))
    watch = Watch(pipe, pipe.transformer, structure_of(FAMILY, pipe))
    with sdpa_kernel(SDPBackend.MATH), watch, applied(pipe, policy):
        watch.follow_session()
        result = call(pipe, prompt=QUOTING)
    torch.testing.assert_close(result, expected)
    assert not torch.allclose(result, without)
    pricer = Pricer(pipe, *FAMILY.size, text_tokens=FAMILY.text_tokens)
    assert watch.flops == pricer.price(policy).flops


OTHERS = [
    ("guider", lambda: diffusers.ClassifierFreeGuidance(), "is a ClassifierFreeGuidance, and no policy knows"),
    (
        "ocr_guider",
        lambda: diffusers.SkipLayerGuidance(skip_layer_guidance_layers=[0]),
        "the ocr_guider of this HunyuanImagePipeline",
    ),
    ("guider", lambda: guider(start=0.2), r"guides from 0\.2 to 1 of the steps"),
    ("guider", lambda: guider(stop=0.5), r"guides from 0 to 0\.5 of the steps"),
]


@pytest.mark.parametrize(("name", "other", "said"), OTHERS)
def test_other_guiders_are_refused(name: str, other: Any, said: str) -> None:
    """When a policy is applied or a price is asked for; and one that comes later before the first denoiser call."""
    pipe = FAMILY.make()
    own = getattr(pipe, name)
    evaluated: list[int] = []
    pipe.transformer.register_forward_hook(lambda *_: evaluated.append(1))
    apply_policy(pipe, Policy(steps=STEPS))
    pipe.register_modules(**{name: other()})
    with pytest.raises(InputError, match=said):
        call(pipe)
    pipe.register_modules(**{name: own})
    remove_policy(pipe)
    pipe.register_modules(**{name: other()})
    with pytest.raises(InputError, match=said):
        apply_policy(pipe, Policy(steps=STEPS))
    with pytest.raises(InputError, match=said):
        Pricer(pipe)
    assert not evaluated


def test_whether_calls_are_guided_is_the_guiders_to_say() -> None:
    pipe = FAMILY.make()

    def guided() -> bool:
        signature = family_of(pipe).call_signature(pipe)
        assert signature.guided({}) == family_of(pipe).guided
        # The scale that a distilled model reads is none of this one's.
        assert scale_argument(pipe, signature) is None
        return signature.guided({})

    assert guided()
    for other in (guider(guidance_scale=1.0), guider(guidance_scale=0.0, use_original_formulation=True), None):
        pipe.register_modules(guider=other)
        assert not guided()
    pipe.register_modules(guider=guider())
    pipe.guider.disable()
    assert not guided()
    distilled = FAMILIES["hunyuan-image-distilled"].make()
    assert scale_argument(distilled, family_of(distilled).call_signature(distilled)) == "distilled_guidance_scale"
