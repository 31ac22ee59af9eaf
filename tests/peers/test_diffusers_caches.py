"""Against the caches that diffusers ships, on FLUX through its own ``enable_cache``.

Both cache the outputs of the attention layers, of double and single blocks alike. What decides
when to compute are timesteps or counts there, which here become explicit ``compute_steps``.

- Pyramid Attention Broadcast (Zhao et al. 2024) is reuse. Inside of its range of timesteps every
  n-th call computes, outside every call. It counts the calls of a layer whatever they are for:
  guidance by a second call of the transformer gets the features of the first.
- TaylorSeer (Liu et al. 2025) of order 1 is the line through the last two computed outputs, at any
  distance from each other: the same as ``mode="forecast", order=1``. Of order 2 it is not the
  parabola through the last three: in place of a derivative it takes the difference looking back.
  With h the time since the last computed output and d the constant distance of computed ones,
  parabola - TaylorSeer = (h / 2d) (y0 - 2 y1 + y2), which is nought for outputs that move on a line.
- TaylorSeer's light variant forecasts the output of ``proj_out``, so that the last norm and the
  embeddings alone are computed. Units end with the last block: ``proj_out`` is computed besides.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from diffusers import PyramidAttentionBroadcastConfig, TaylorSeerCacheConfig

from autotune.core.errors import InputError
from autotune.policy import CacheRule, Policy
from autotune.runtime import applied
from tests.peers.watch import Work, watched
from tests.support.builders import FAMILIES

STEPS = 12
FLUX = FAMILIES["flux"]
ATTENTION = ("transformer_blocks.*.attn", "single_transformer_blocks.*.attn")
FIRST, LAST = "transformer_blocks.0.attn", "single_transformer_blocks.3.attn"


@cache
def pipeline() -> Any:
    return FLUX.make()


def run(pipe: Any, *, flops: bool = False, outputs: tuple[str, ...] = (), **options: Any) -> tuple[torch.Tensor, Work]:
    with watched(pipe.transformer, flops=flops, outputs=outputs) as work:
        return FLUX.run(pipe, **FLUX.arguments(**({"steps": STEPS, "guidance": False} | options))), work


def run_cached(pipe: Any, config: Any, **options: Any) -> tuple[torch.Tensor, Work]:
    pipe.transformer.enable_cache(config)
    try:
        return run(pipe, **options)
    finally:
        pipe.transformer.disable_cache()


def run_policy(pipe: Any, compute_steps: list[int], **options: Any) -> tuple[torch.Tensor, Work]:
    rule = {"units": ATTENTION} | {key: options.pop(key) for key in ("units", "mode", "order") if key in options}
    policy = Policy(steps=options.get("steps", STEPS), cache=(CacheRule(compute_steps=tuple(compute_steps), **rule),))
    with applied(pipe, policy):
        return run(pipe, **options)


@cache
def plain(guidance: bool = False) -> torch.Tensor:
    return run(pipeline(), guidance=guidance)[0]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().max())


def broadcast(pipe: Any, skip: int, timesteps: tuple[int, int]) -> PyramidAttentionBroadcastConfig:
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=skip,
        spatial_attention_timestep_skip_range=timesteps,
        current_timestep_callback=lambda: pipe.current_timestep,
    )


@pytest.mark.parametrize("timesteps", [(-1, 1001), (100, 800)])
@pytest.mark.parametrize("skip", [2, 3])
def test_pyramid_attention_broadcast(skip: int, timesteps: tuple[int, int]) -> None:
    pipe = pipeline()
    theirs, their_work = run_cached(pipe, broadcast(pipe, skip, timesteps))
    low, high = timesteps
    outside = [not low < timestep < high for timestep in pipe.scheduler.timesteps]
    steps = [step for step in range(STEPS) if step % skip == 0 or outside[step]]
    ours, our_work = run_policy(pipe, steps)
    assert our_work.computed(f"{LAST}.to_q") == steps
    assert our_work.calls == their_work.calls
    assert apart(ours, theirs) < 1e-4 < 1e-2 < apart(ours, plain())


def test_pyramid_attention_broadcast_mixes_up_the_branches_of_guidance() -> None:
    """Every other call is the unconditional one, and with a skip of 2 it always takes the conditional one's."""
    pipe = pipeline()
    layer = f"{FIRST}.to_q"
    _, theirs = run_cached(pipe, broadcast(pipe, 2, (-1, 1001)), guidance=True, outputs=(FIRST,))
    assert theirs.computed(layer) == list(range(0, 2 * STEPS, 2))
    _, ours = run_policy(pipe, list(range(0, STEPS, 2)), guidance=True, outputs=(FIRST,))
    assert ours.computed(layer) == [call for call in range(2 * STEPS) if call % 4 < 2]
    for work, same in ((theirs, True), (ours, False)):
        conditional, unconditional = (work.outputs[call][FIRST][1] for call in (0, 1))
        assert torch.equal(conditional, unconditional) is same


def taylor(interval: int, before: int, after: int | None = None, order: int = 1) -> Any:
    return TaylorSeerCacheConfig(
        cache_interval=interval,
        disable_cache_before_step=before,
        disable_cache_after_step=after,
        max_order=order,
        taylor_factors_dtype=torch.float32,
    )


def taylor_steps(interval: int, before: int, after: int | None = None) -> list[int]:
    """All steps up to ``before``, then the second step that could be forecast, from there every interval-th."""
    after = STEPS if after is None else after
    return [step for step in range(STEPS) if step < before or step >= after or (step - before - 1) % interval == 0]


@pytest.mark.parametrize("guidance", [False, True], ids=["unguided", "guided"])
@pytest.mark.parametrize(
    ("interval", "before", "after", "steps"),
    [
        # A fixed interval from the first step on.
        (2, 1, None, [0, 2, 4, 6, 8, 10]),
        (3, 2, None, [0, 1, 3, 6, 9]),
        # A slow start and end; intervals of different length in between.
        (4, 3, 10, [0, 1, 2, 4, 8, 10, 11]),
    ],
)
def test_taylorseer_of_first_order(
    interval: int, before: int, after: int | None, steps: list[int], guidance: bool
) -> None:
    assert taylor_steps(interval, before, after) == steps
    pipe = pipeline()
    theirs, their_work = run_cached(pipe, taylor(interval, before, after), guidance=guidance)
    ours, our_work = run_policy(pipe, steps, mode="forecast", order=1, guidance=guidance)
    branches = 2 if guidance else 1
    assert our_work.computed(f"{LAST}.to_q") == [branches * step + n for step in steps for n in range(branches)]
    assert our_work.calls == their_work.calls
    assert apart(ours, theirs) < 1e-4 < 1e-2 < apart(ours, plain(guidance))


@pytest.mark.parametrize("mode", ["reuse", "forecast"])
def test_no_more_flops(mode: str) -> None:
    pipe = pipeline()
    config = broadcast(pipe, 2, (-1, 1001)) if mode == "reuse" else taylor(2, 1)
    _, theirs = run_cached(pipe, config, steps=4, flops=True)
    order = None if mode == "reuse" else 1
    _, ours = run_policy(pipe, [0, 2], mode=mode, order=order, steps=4, flops=True)
    assert 0 < ours.flops <= theirs.flops


def test_taylorseer_of_second_order() -> None:
    """The two differ by (h / 2d) (y0 - 2 y1 + y2) from the first step on that has three outputs to forecast from."""
    pipe = pipeline()
    steps = taylor_steps(interval=3, before=3)
    assert steps[:4] == [0, 1, 2, 4]
    options: dict[str, Any] = {"outputs": (FIRST,)}
    theirs, their_work = run_cached(pipe, taylor(3, 3, order=2), **options)
    ours, our_work = run_policy(pipe, steps, mode="forecast", order=2, **options)
    assert our_work.calls == their_work.calls
    for stream in (0, 1):
        y2, y1, y0, forecast = (call[FIRST][stream] for call in our_work.outputs[:4])
        for call, output in enumerate((y2, y1, y0)):
            assert apart(output, their_work.outputs[call][FIRST][stream]) < 1e-5
        difference = forecast - their_work.outputs[3][FIRST][stream]
        curvature = y0 - 2 * y1 + y2
        assert apart(difference, curvature / 2) < 1e-5 < 1e-3 < float(curvature.abs().max())
        # The parabola through the three, one step on.
        assert apart(forecast, 3 * y0 - 3 * y1 + y2) < 1e-5
    assert apart(ours, theirs) > 1e-3


def test_taylorseer_in_its_light_variant() -> None:
    """The same blocks are computed, and in every step ``proj_out`` besides."""
    pipe, steps = pipeline(), taylor_steps(interval=3, before=2)
    config = taylor(3, 2)
    config.use_lite_mode = True
    theirs, their_work = run_cached(pipe, config, flops=True)
    ours, our_work = run_policy(
        pipe, steps, units=("single_transformer_blocks.3",), mode="forecast", order=1, flops=True
    )
    assert our_work.computed(f"{LAST}.to_q") == steps
    assert our_work.calls == their_work.calls
    # A multiplication and an addition for every weight and each of 64 tokens.
    projection = 2 * pipe.transformer.proj_out.weight.numel() * 64
    assert our_work.flops == their_work.flops + (STEPS - len(steps)) * projection
    assert min(apart(ours, theirs), apart(ours, plain())) > 1e-3


def test_one_at_a_time() -> None:
    pipe, policy = pipeline(), Policy(steps=STEPS, cache=(CacheRule(units=ATTENTION, compute_steps=(0, 6)),))
    pipe.transformer.enable_cache(taylor(3, 2))
    try:
        with pytest.raises(InputError, match=r"disable_cache\(\)"), applied(pipe, policy):
            pass
    finally:
        pipe.transformer.disable_cache()
    with applied(pipe, policy):
        expected, _ = run(pipe)
        pipe.transformer.enable_cache(taylor(3, 2))
        try:
            with pytest.raises(InputError, match=r"disable_cache\(\)"):
                run(pipe)
        finally:
            pipe.transformer.disable_cache()
        assert torch.equal(run(pipe)[0], expected)
    assert torch.equal(run(pipe)[0], plain())
