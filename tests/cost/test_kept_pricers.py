"""A price that is asked for again is quick, and never that of what the pipeline was before."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from peft import LoraConfig

import autotune
from autotune.cost import Cost, Pricer, kept_pricers
from autotune.cost import pricing as module
from autotune.policy import CacheRule, Policy
from tests.support.builders import FAMILIES
from tests.support.fake_search import tiny_pipeline

POLICY = Policy(steps=6, cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 3)),))


@pytest.fixture
def mine() -> Any:
    return tiny_pipeline()


def anew(pipe: Any, policy: Policy = POLICY) -> Cost:
    return Pricer(pipe).price(policy)


def test_no_pricer_is_made_twice(mine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = autotune.price(mine, POLICY)
    monkeypatch.setattr(module.Pricer, "__init__", lambda *_, **__: pytest.fail("made anew"))
    assert autotune.price(mine, POLICY) == first
    assert autotune.price(mine, Policy(steps=3)).relative < first.relative
    assert autotune.price(mine, POLICY, batch_size=2).flops == 2 * first.flops


def test_sizes_do_not_mix(mine: Any) -> None:
    small, large = (autotune.price(mine, POLICY, height=side, width=side).flops for side in (16, 32))
    assert small < large == autotune.price(mine, POLICY, height=32, width=32).flops


def use(pipe: Any, scheduler: Any) -> None:
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)


def add_lora(pipe: Any) -> None:
    pipe.unet.add_adapter(LoraConfig(r=4, target_modules=["to_q"]), adapter_name="lora")


def edit_scheduler(pipe: Any) -> None:
    pipe.scheduler.register_to_config(steps_offset=0, num_train_timesteps=500)


def edit_denoiser(pipe: Any) -> None:
    pipe.unet.register_to_config(sample_size=8)


def replace_block(pipe: Any) -> None:
    pipe.unet.mid_block = copy.deepcopy(pipe.unet.mid_block)


def replace_layer(pipe: Any) -> None:
    attention = pipe.unet.mid_block.attentions[0]
    attention.proj_in = copy.deepcopy(attention.proj_in)


def parametrize(pipe: Any) -> None:
    torch.nn.utils.parametrizations.weight_norm(pipe.unet.conv_out)


CHANGES: dict[str, Callable[[Any], None]] = {
    "a LoRA": add_lora,
    "another scheduler": lambda pipe: use(pipe, HeunDiscreteScheduler),
    "the scheduler's settings": edit_scheduler,
    "the denoiser's settings": edit_denoiser,
    "half precision": lambda pipe: pipe.unet.half(),
    "another block": replace_block,
    "another layer": replace_layer,
    "parametrised weights": parametrize,
    "another denoiser": lambda pipe: setattr(pipe, "unet", tiny_pipeline().unet),
    "a longer text": lambda pipe: setattr(pipe.tokenizer, "model_max_length", 4),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_has_changed_is_priced_as_it_is_now(mine: Any, change: Callable[[Any], None]) -> None:
    before = autotune.price(mine, POLICY)
    change(mine)
    assert autotune.price(mine, POLICY) == anew(mine)
    assert autotune.price(mine, POLICY) == anew(mine)
    assert isinstance(before, Cost)


def test_some_of_these_changes_change_the_price(mine: Any) -> None:
    before = autotune.price(mine, POLICY)
    use(mine, HeunDiscreteScheduler)
    assert autotune.price(mine, POLICY).flops > before.flops
    use(mine, DDIMScheduler)
    assert autotune.price(mine, POLICY) == before
    edit_denoiser(mine)
    assert autotune.price(mine, POLICY).flops < before.flops


def test_under_a_policy_the_price_is_the_same(mine: Any) -> None:
    before = autotune.price(mine, POLICY)
    with autotune.applied(mine, POLICY):
        assert autotune.price(mine, POLICY) == before
    assert autotune.price(mine, POLICY) == before


def test_nothing_is_kept_of_a_pipeline_that_is_gone() -> None:
    pipe = tiny_pipeline()
    autotune.price(pipe, POLICY)
    gone = [weakref.ref(pipe), weakref.ref(pipe.unet)]
    del pipe
    gc.collect()
    assert [each() for each in gone] == [None, None]


def test_a_copy_has_a_price_of_its_own(mine: Any) -> None:
    autotune.price(mine, POLICY)
    other = copy.deepcopy(mine)
    use(other, EulerDiscreteScheduler)
    assert autotune.price(other, POLICY) == anew(other)
    assert autotune.price(mine, POLICY) == anew(mine)


@pytest.fixture(scope="module", params=[name for name, tiny in FAMILIES.items() if tiny.frames is None])
def listed(request: pytest.FixtureRequest) -> tuple[Any, str]:
    """A pipeline of every family, and what its denoiser is called."""
    tiny = FAMILIES[request.param]
    return tiny.make(), tiny.denoiser


def test_kept_or_made_anew_the_price_is_the_same(listed: tuple[Any, str]) -> None:
    pipe, _ = listed
    policy = Policy(steps=4)
    for _ in range(2):
        assert autotune.price(pipe, policy) == anew(pipe, policy)


def test_every_module_is_looked_at(listed: tuple[Any, str]) -> None:
    pipe, name = listed
    denoiser = getattr(pipe, name)
    assert {*kept_pricers._modules(denoiser)} - {None} == {*denoiser.modules()}


def test_a_change_of_any_layer_is_seen(mine: Any) -> None:
    before = kept_pricers._State.of(mine)
    for change in (add_lora, replace_block, replace_layer, parametrize):
        change(mine)
        after = kept_pricers._State.of(mine)
        assert after != before
        before = after
