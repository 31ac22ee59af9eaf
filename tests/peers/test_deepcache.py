"""Against DeepCache (Ma et al. 2023), the package of its authors.

Its reuse of one branch of the U-Net is the reuse of one unit: what feeds only that unit is not
needed. Both compute first in step 0 and then in every interval-th. Differences:

- DeepCache finds the step by the position of its timestep among the scheduler's, and goes astray
  where timesteps repeat (Heun, PNDM); here calls of the denoiser are counted.
- DeepCache takes the timestep of the first call ever as the first step, and keeps all features
  until it is disabled; here every call of the pipeline stands for itself.
- DeepCache keeps the output of every layer and block; here one output is kept, the one that is read.
- DeepCache takes every block to have three skip connections, of which branches are numbered.
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
from tests.peers.deepcache import deepcache, deepcache_policy
from tests.peers.watch import Work, watched
from tests.support.builders import FAMILIES

MODELS = ("sd", "sdxl")
STEPS = 12
# A layer that runs when anything below the outermost skip connections does.
DEEP = "mid_block.resnets.0.conv1"

_BETAS: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


@cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make(DDIMScheduler(**_BETAS, clip_sample=False))


def run(name: str, pipe: Any, *, flops: bool = False, **options: Any) -> tuple[torch.Tensor, Work]:
    family = FAMILIES[name]
    with watched(pipe.unet, flops=flops) as work:
        return family.run(pipe, **family.arguments(**({"steps": STEPS} | options))), work


@cache
def plain(name: str) -> torch.Tensor:
    return run(name, pipeline(name))[0]


@pytest.mark.parametrize("branch", [0, 1, 3])
@pytest.mark.parametrize("interval", [2, 3, 5])
@pytest.mark.parametrize("name", MODELS)
def test_same_pictures_from_the_same_layers(name: str, interval: int, branch: int) -> None:
    pipe = pipeline(name)
    with deepcache(pipe, interval, branch):
        theirs, their_work = run(name, pipe)
    with applied(pipe, deepcache_policy(pipe.unet, interval, branch, STEPS)):
        ours, our_work = run(name, pipe)
    assert (ours - theirs).abs().max() < 1e-5
    assert (ours - plain(name)).abs().max() > 1e-2
    assert our_work.calls == their_work.calls
    assert our_work.computed(DEEP) == list(range(0, STEPS, interval))


# All branches of three blocks in one model, some in the other.
@pytest.mark.parametrize(("name", "branch"), [*(("sd", n) for n in range(9)), ("sdxl", 0), ("sdxl", 1), ("sdxl", 3)])
def test_no_more_flops_in_any_branch(name: str, branch: int) -> None:
    """A step that computes and one that reuses: with the same layers, all there are."""
    pipe = pipeline(name)
    with deepcache(pipe, 2, branch):
        theirs, their_work = run(name, pipe, steps=2, flops=True)
    with applied(pipe, deepcache_policy(pipe.unet, 2, branch, 2)):
        ours, our_work = run(name, pipe, steps=2, flops=True)
    assert (ours - theirs).abs().max() < 1e-5
    assert 0 < our_work.flops <= their_work.flops
    assert our_work.calls == their_work.calls
    assert our_work.calls[1] < our_work.calls[0]


@pytest.mark.parametrize("name", MODELS)
def test_one_output_is_kept_and_none_outlives_the_call(name: str) -> None:
    pipe, interval, branch = pipeline(name), 2, 0
    with deepcache(pipe, interval, branch) as helper:
        run(name, pipe, steps=4)
        theirs = [leaf for leaf in tree_leaves(helper.cached_output) if isinstance(leaf, torch.Tensor)]
    kept = []
    with applied(pipe, deepcache_policy(pipe.unet, interval, branch, 4)):
        session = session_of(pipe)
        assert session is not None

        def note(_pipe: Any, _step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            kept.append(session.kept_bytes())
            return values

        run(name, pipe, steps=4, callback_on_step_end=note)
        assert session.kept_bytes() == 0
    # Of two rows (guidance) 16 channels of 16 x 16, in float32, until the next step has read them.
    one = 2 * 16 * 16 * 16 * 4
    assert kept == [one, 0, one, 0]
    assert sum(leaf.numel() * leaf.element_size() for leaf in theirs) > 10 * one


def test_a_solver_that_repeats_timesteps() -> None:
    """Heun takes every timestep but the first twice.

    DeepCache finds the earlier of the two positions, which is odd for all but the first step: with
    interval 2 it computes once and never again.
    """
    steps, interval, branch = 4, 2, 0
    pipe = FAMILIES["sd"].make(HeunDiscreteScheduler(**_BETAS))
    with deepcache(pipe, interval, branch):
        _, theirs = run("sd", pipe, steps=steps)
    with applied(pipe, deepcache_policy(pipe.unet, interval, branch, steps)):
        _, ours = run("sd", pipe, steps=steps)
    assert len(ours.calls) == len(theirs.calls) == 2 * steps - 1
    assert theirs.computed(DEEP) == [0]
    # Both calls of steps 0 and 2.
    assert ours.computed(DEEP) == [0, 1, 4, 5]


def test_a_call_after_one_of_another_strength() -> None:
    """Image-to-image begins the later among the timesteps the lower its strength.

    DeepCache goes on counting from where its first call began, and here takes what it kept of that
    call's picture for the first step of the next.
    """
    name, interval, branch = "sd-img2img", 2, 0
    pipe = pipeline(name)
    policy = deepcache_policy(pipe.unet, interval, branch, STEPS)
    first: dict[str, Any] = {"strength": 0.75, "seed": 5}
    second: dict[str, Any] = {"strength": 0.5}

    with deepcache(pipe, interval, branch):
        fresh, _ = run(name, pipe, **second)
    with deepcache(pipe, interval, branch):
        run(name, pipe, **first)
        after_another, theirs = run(name, pipe, **second)
    assert 0 not in theirs.computed(DEEP)
    assert (after_another - fresh).abs().max() > 1e-2

    with applied(pipe, policy):
        fresh, _ = run(name, pipe, **second)
    with applied(pipe, policy):
        run(name, pipe, **first)
        after_another, ours = run(name, pipe, **second)
    assert 0 in ours.computed(DEEP)
    assert torch.equal(after_another, fresh)
