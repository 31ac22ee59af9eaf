"""Against DeepCache (Ma et al. 2023), the package of its authors.

Its reuse of one branch of the U-Net is the reuse of one unit: what feeds only that unit is not
needed. Both compute first in step 0 and then in every interval-th. Differences:

- DeepCache finds the step by the position of its timestep among the scheduler's, and so runs
  astray where timesteps repeat (Heun, PNDM); here calls of the denoiser are counted.
- DeepCache takes the timestep of the first call ever as the first step, and keeps all features
  until it is disabled; here every call of the pipeline stands for itself.
- DeepCache keeps the output of every layer and block; here one output is kept, the one that is read.
- DeepCache takes every block to have three skip connections.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler
from torch.utils._pytree import tree_leaves

from autotune.runtime import applied
from autotune.runtime.apply import session_of
from tests.conformance.builders import FAMILIES
from tests.peers.deepcache import deepcache, deepcache_policy
from tests.peers.watch import Work, watched

STEPS = 12
MODELS = ("sd", "sdxl")
# Branches of three blocks with three skip connections each.
BRANCHES = range(9)
# A layer of every resnet.
LAYER = "conv1"

BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@cache
def pipeline(name: str, scheduler: type[Any] = DDIMScheduler) -> Any:
    more = {"clip_sample": False} if scheduler is DDIMScheduler else {}
    return FAMILIES[name].make(scheduler(**BETAS, **more))


def run(name: str, pipe: Any, **options: Any) -> tuple[torch.Tensor, Work]:
    family = FAMILIES[name]
    with watched(pipe.unet, LAYER) as work:
        return family.run(pipe, **family.arguments(**({"steps": STEPS} | options))), work


@cache
def plain(name: str) -> tuple[torch.Tensor, Work]:
    return run(name, pipeline(name))


def both(
    name: str, pipe: Any, interval: int, branch: int, steps: int = STEPS, **options: Any
) -> tuple[tuple[torch.Tensor, Work], tuple[torch.Tensor, Work]]:
    """A call under DeepCache and one under the policy."""
    with deepcache(pipe, interval, branch):
        theirs = run(name, pipe, steps=steps, **options)
    with applied(pipe, deepcache_policy(pipe.unet, interval, branch, steps)):
        ours = run(name, pipe, steps=steps, **options)
    return theirs, ours


@pytest.mark.parametrize("branch", [0, 1, 3])
@pytest.mark.parametrize("interval", [2, 3, 5])
@pytest.mark.parametrize("name", MODELS)
def test_same_pictures_from_the_same_work(name: str, interval: int, branch: int) -> None:
    (theirs, their_work), (ours, our_work) = both(name, pipeline(name), interval, branch, batch=2)
    assert (ours - theirs).abs().max() < 1e-5
    assert our_work.flops <= their_work.flops
    assert our_work.calls == their_work.calls
    full, full_work = plain(name)
    assert (ours[:1] - full).abs().max() > 1e-3
    assert our_work.flops < 2 * full_work.flops


@pytest.mark.parametrize("branch", BRANCHES)
@pytest.mark.parametrize("name", MODELS)
def test_every_branch_of_the_unet(name: str, branch: int) -> None:
    (theirs, their_work), (ours, our_work) = both(name, pipeline(name), interval=2, branch=branch, steps=4)
    assert (ours - theirs).abs().max() < 1e-5
    assert our_work.flops <= their_work.flops
    assert our_work.calls == their_work.calls


@pytest.mark.parametrize("name", MODELS)
def test_one_output_is_kept_and_none_survives_the_call(name: str) -> None:
    pipe = pipeline(name)
    with deepcache(pipe, interval=3, branch=0) as helper:
        run(name, pipe)
        theirs = [leaf for leaf in tree_leaves(helper.cached_output) if isinstance(leaf, torch.Tensor)]
    kept = []

    def note(_pipe: Any, _step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        kept.append(session.kept_bytes())
        return values

    with applied(pipe, deepcache_policy(pipe.unet, 3, 0, STEPS)):
        session = session_of(pipe)
        assert session is not None
        run(name, pipe, callback_on_step_end=note)
        assert session.kept_bytes() == 0
    # Two rows (guidance) of the last up block's 16 channels of 16 x 16.
    assert max(kept) == 2 * 16 * 16 * 16 * 4
    assert sum(leaf.numel() * leaf.element_size() for leaf in theirs) > 10 * max(kept)


def test_a_solver_that_repeats_timesteps() -> None:
    """Heun evaluates every timestep but the first twice: its n-th, 2n-1st and 2n-th calls.

    DeepCache finds the earlier of the two positions, which is odd for all but the first step: with
    interval 2 it computes once and never again.
    """
    steps = 4
    pipe = pipeline("sd", HeunDiscreteScheduler)
    layer = f"mid_block.resnets.0.{LAYER}"
    (_, their_work), (ours, our_work) = both("sd", pipe, interval=2, branch=0, steps=steps)
    assert len(our_work.calls) == len(their_work.calls) == 2 * steps - 1
    assert their_work.computed(layer) == [0]
    # Both calls of steps 0 and 2.
    assert our_work.computed(layer) == [0, 1, 4, 5]
    assert torch.isfinite(ours).all()


def test_a_call_after_another_of_another_strength() -> None:
    """Image-to-image begins at a later timestep the lower its strength.

    DeepCache goes on counting from where its first call began, and here takes what it kept of that
    call's picture for the first step of the next.
    """
    name, interval, branch = "sd-img2img", 2, 0
    pipe = pipeline(name)
    with deepcache(pipe, interval, branch):
        fresh, _ = run(name, pipe, strength=0.5)
    with deepcache(pipe, interval, branch):
        run(name, pipe, strength=0.75, seed=5)
        second, work = run(name, pipe, strength=0.5)
    assert (second - fresh).abs().max() > 1e-3
    assert 0 not in work.computed(f"mid_block.resnets.0.{LAYER}")

    with applied(pipe, deepcache_policy(pipe.unet, interval, branch, STEPS)):
        ours_fresh, _ = run(name, pipe, strength=0.5)
    with applied(pipe, deepcache_policy(pipe.unet, interval, branch, STEPS)):
        run(name, pipe, strength=0.75, seed=5)
        ours_second, work = run(name, pipe, strength=0.5)
    assert torch.equal(ours_second, ours_fresh)
    assert 0 in work.computed(f"mid_block.resnets.0.{LAYER}")
