"""An unmodified pipeline under a policy: exact where it must be, restored when asked, clear when it cannot.

Of :mod:`autotune.runtime.apply`, and of :mod:`autotune.runtime.runtime` and :mod:`autotune.runtime.hook_set` under it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from autotune.core.errors import InputError, PolicyError
from autotune.cost import Pricer
from autotune.evaluation.pictures import generate
from autotune.plan import Action, compile_plan
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.runtime import applied, apply_policy, describe_model, full_policy, remove_policy
from autotune.runtime.apply import session_of
from tests.support.tiny import tiny_sd

PROMPTS, SEEDS = ["a cat", "a dog", "a hat"], [1, 2, 3]
DEEP = CacheRule(units=("up_blocks.1",), compute_steps=(0, 2, 4))
DEEP_4 = CacheRule(units=("up_blocks.1",), compute_steps=(0, 2))
FORECAST = CacheRule(units=("up_blocks.1",), mode="forecast", order=2, compute_steps=(0, 1, 2, 4))
MIXED = Policy(
    steps=6,
    resolution=(ResolutionStage(scale=0.5, until_step=2),),
    guidance=Guidance(stop_step=4),
    cache=(DEEP,),
)


@pytest.fixture
def pipe() -> Any:
    return tiny_sd()


def pictures(pipe: Any, steps: int | None = None, **options: Any) -> Tensor:
    return generate(pipe, PROMPTS, SEEDS, steps=steps, **options)


def test_the_full_policy_changes_no_bit(pipe: Any) -> None:
    plain = pictures(pipe, steps=6)
    with applied(pipe, full_policy(pipe, 6)):
        assert torch.equal(pictures(pipe), plain)


def test_computing_at_every_step_changes_no_bit(pipe: Any) -> None:
    plain = pictures(pipe, steps=4)
    rule = CacheRule(units=("up_blocks.1", "mid_block"), compute_steps=(0, 1, 2, 3))
    with applied(pipe, Policy(steps=4, guidance=Guidance(stop_step=4), cache=(rule,))):
        assert torch.equal(pictures(pipe), plain)


def test_a_removed_policy_leaves_no_trace(pipe: Any) -> None:
    plain = pictures(pipe, steps=6)
    before = set(vars(pipe)), set(vars(pipe.scheduler))
    apply_policy(pipe, MIXED)
    assert not torch.equal(pictures(pipe), plain)
    remove_policy(pipe)
    assert torch.equal(pictures(pipe, steps=6), plain)
    added = set(vars(pipe)) - before[0], set(vars(pipe.scheduler)) - before[1]
    assert added == (set(), set())


def test_same_seeds_same_pictures_after_calls_of_another_shape(pipe: Any) -> None:
    with applied(pipe, MIXED):
        first = pictures(pipe)
        pictures(pipe, height=64, width=32)
        generate(pipe, ["x"], [9])
        pictures(pipe, guidance_scale=1.0)
        assert torch.equal(pictures(pipe), first)


def test_an_exception_in_the_denoiser_leaves_the_next_call_clean(pipe: Any) -> None:
    with applied(pipe, MIXED):
        first = pictures(pipe)
        calls = iter(range(100))

        def fail(module: Any, args: Any) -> None:
            if next(calls) == 3:
                raise RuntimeError("out of memory")

        handle = pipe.unet.conv_in.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            pictures(pipe)
        handle.remove()
        session = session_of(pipe)
        assert session is not None
        assert session.kept_bytes() == 0
        assert torch.equal(pictures(pipe), first)


def test_two_pipelines_do_not_touch_each_other(pipe: Any) -> None:
    other = tiny_sd()
    plain = pictures(other, steps=6)
    with applied(pipe, MIXED):
        assert torch.equal(pictures(other, steps=6), plain)


def test_stopped_guidance_equals_the_conditional_branch_alone(pipe: Any) -> None:
    """From the first step on, stopped guidance is what the pipeline does at guidance scale 1."""
    plain = pictures(pipe, steps=5, guidance_scale=1.0)
    with applied(pipe, Policy(steps=5, guidance=Guidance(start_step=4, stop_step=5))):
        stopped = pictures(pipe)
    with applied(pipe, Policy(steps=5)):
        full = pictures(pipe)
    assert (stopped.float() - plain.float()).abs().mean() < (full.float() - plain.float()).abs().mean()


def test_the_branch_that_goes_on_is_the_conditional_one(pipe: Any) -> None:
    texts: list[Tensor] = []
    handle = pipe.unet.down_blocks[1].register_forward_pre_hook(
        lambda module, args, kwargs: texts.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    with applied(pipe, Policy(steps=3, guidance=Guidance(stop_step=1))):
        pictures(pipe)
    handle.remove()
    both, *conditional = texts
    for text in conditional:
        assert torch.equal(text, both[len(PROMPTS) :])
    assert not torch.equal(both[: len(PROMPTS)], both[len(PROMPTS) :])


def test_features_kept_under_guidance_serve_the_conditional_branch_after_it(pipe: Any) -> None:
    outputs: list[Tensor] = []
    rule = CacheRule(units=("up_blocks.1",), compute_steps=(0, 1))
    with applied(pipe, Policy(steps=3, guidance=Guidance(stop_step=2), cache=(rule,))):
        handle = pipe.unet.up_blocks[1].register_forward_hook(lambda module, args, output: outputs.append(output))
        pictures(pipe)
        handle.remove()
    _, computed, reused = outputs
    assert torch.equal(reused, computed[len(PROMPTS) :])


def counted_calls(pipe: Any, policy: Policy) -> Iterator[tuple[int, Counter[str]]]:
    """Per step, the units that really ran: counted by the first leaf module inside each."""
    calls: list[Counter[str]] = []
    handles = [pipe.unet.register_forward_pre_hook(lambda *_: calls.append(Counter()))]
    modules = dict(pipe.unet.named_modules())
    for unit in Pricer(pipe).structure.units:
        leaf = next(m for m in modules[unit.name].modules() if not list(m.children()))
        handles.append(leaf.register_forward_pre_hook(lambda *_, name=unit.name: calls[-1].update([name])))
    with applied(pipe, policy):
        pictures(pipe)
    for handle in handles:
        handle.remove()
    yield from enumerate(calls)


def test_exactly_the_planned_units_run(pipe: Any) -> None:
    structure = Pricer(pipe).structure
    plan = compile_plan(MIXED, structure, 8, 8)
    for index, calls in counted_calls(pipe, MIXED):
        actions = plan.steps[index].actions
        planned = {u.name for u, a in zip(structure.units, actions, strict=True) if a is Action.COMPUTE}
        assert set(calls) == planned, f"step {index}"


@pytest.mark.parametrize("rule", [DEEP, FORECAST])
def test_kept_features_take_the_predicted_bytes(pipe: Any, rule: CacheRule) -> None:
    policy = Policy(steps=6, guidance=Guidance(stop_step=4), cache=(rule,))
    peak = 0

    def watch(*_: Any) -> None:
        nonlocal peak
        session = session_of(pipe)
        assert session is not None
        peak = max(peak, session.kept_bytes())

    with applied(pipe, policy):
        handle = pipe.unet.conv_out.register_forward_hook(watch)
        pictures(pipe)
        handle.remove()
    assert peak == Pricer(pipe).price(policy, batch_size=len(PROMPTS)).cache_bytes > 0


def test_a_forecast_is_the_line_through_the_last_two_computed_outputs(pipe: Any) -> None:
    outputs: list[Tensor] = []
    block = pipe.unet.up_blocks[1]
    rule = CacheRule(units=("up_blocks.1",), mode="forecast", order=1, compute_steps=(0, 1, 3))
    with applied(pipe, Policy(steps=5, cache=(rule,))):
        # Hooks of a module see what its replaced forward returns.
        handle = block.register_forward_hook(lambda module, args, output: outputs.append(output))
        pictures(pipe)
        handle.remove()
    computed_0, computed_1, forecast_2, computed_3, forecast_4 = outputs
    torch.testing.assert_close(forecast_2, 2 * computed_1 - computed_0)
    torch.testing.assert_close(forecast_4, 1.5 * computed_3 - 0.5 * computed_1)


@pytest.mark.parametrize("rule", [DEEP, FORECAST])
def test_kept_features_are_gone_after_the_call(pipe: Any, rule: CacheRule) -> None:
    with applied(pipe, Policy(steps=6, cache=(rule,))):
        pictures(pipe)
        session = session_of(pipe)
        assert session is not None
        assert session.kept_bytes() == 0


@pytest.mark.parametrize("scheduler", [DDIMScheduler, DDPMScheduler])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_resolution_changes_in_the_middle(scheduler: Any, prediction: str) -> None:
    pipe = tiny_sd(scheduler=scheduler(steps_offset=1, clip_sample=False, prediction_type=prediction))
    sizes: list[int] = []
    pipe.unet.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[-1]))
    with applied(pipe, Policy(steps=5, resolution=(ResolutionStage(scale=0.5, until_step=2),))):
        assert pictures(pipe).shape == (3, 3, 32, 32)
    assert sizes == [4, 4, 8, 8, 8]


def test_other_steps_than_the_policys_are_refused(pipe: Any) -> None:
    with applied(pipe, MIXED):
        pictures(pipe, steps=6)
        with pytest.raises(InputError, match="has 6 steps and the call asks for 9"):
            pictures(pipe, steps=9)


def test_latents_that_the_caller_brings_start_the_lower_stage_too(pipe: Any) -> None:
    """They are the noise that the generator would have drawn."""
    matched = Policy(
        steps=4, resolution=(ResolutionStage(scale=0.5, until_step=2, handoff="noise_matched"),), cache=(DEEP_4,)
    )
    size = pipe.unet.config.sample_size
    noise = torch.randn(1, pipe.unet.config.in_channels, size, size, generator=torch.Generator().manual_seed(7))
    with applied(pipe, matched):
        brought = pipe("a cat", latents=noise, output_type="pt").images
        drawn = pipe("a cat", generator=torch.Generator().manual_seed(7), output_type="pt").images
    assert torch.equal(brought, drawn)


def test_a_scheduler_swapped_afterwards_is_refused(pipe: Any) -> None:
    with applied(pipe, MIXED):
        original, pipe.scheduler = pipe.scheduler, DDIMScheduler(steps_offset=1, clip_sample=False)
        with pytest.raises(InputError, match="scheduler was replaced"):
            pipe("a cat")
        pipe.scheduler = original


def test_applying_twice_and_removing_nothing_are_refused(pipe: Any) -> None:
    with pytest.raises(InputError, match="no policy"):
        remove_policy(pipe)
    with applied(pipe, MIXED), pytest.raises(InputError, match="already runs"):
        apply_policy(pipe, MIXED)


def test_a_policy_for_another_model_is_refused_unless_told_otherwise(pipe: Any) -> None:
    policy = MIXED.model_copy(update={"model": describe_model(pipe, 6)})
    other = tiny_sd(block_out_channels=(8, 16, 24))
    with pytest.raises(PolicyError, match="made for another model: its denoiser fingerprint"):
        apply_policy(other, policy)
    apply_policy(other, policy, strict=False)
    remove_policy(apply_policy(pipe, policy))


def test_a_refused_policy_changes_nothing(pipe: Any) -> None:
    plain = pictures(pipe, steps=3)
    rule = CacheRule(units=("up_blocks.9",), compute_steps=(0,))
    with pytest.raises(PolicyError, match=r"up_blocks\.9"):
        apply_policy(pipe, Policy(steps=3, cache=(rule,)))
    assert torch.equal(pictures(pipe, steps=3), plain)


def test_the_progress_bar_counts_the_policys_steps(pipe: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pipe.set_progress_bar_config(disable=False)
    with applied(pipe, MIXED):
        pipe("a cat")
    assert "6/6" in capsys.readouterr().err


def test_a_saved_and_loaded_pipeline_is_the_same_model(pipe: Any, tmp_path: Any) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = type(pipe).from_pretrained(tmp_path, safety_checker=None)
    assert describe_model(loaded, 6) == describe_model(pipe, 6)
