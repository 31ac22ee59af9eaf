from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, PNDMScheduler

from autotune.runtime.snapshot import NotPlainError, canonical_form, emptied, filled, restore_scheduler, scheduler_state


def test_a_restored_scheduler_goes_on_as_it_did() -> None:
    scheduler = DPMSolverMultistepScheduler()
    scheduler.set_timesteps(5)
    latents = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0))

    def steps(first: int, latents: torch.Tensor) -> torch.Tensor:
        for timestep in scheduler.timesteps[first : first + 2]:
            latents = scheduler.step(latents * 0.5, timestep, latents).prev_sample
        return latents

    middle = steps(0, latents)
    state = scheduler_state(scheduler)
    end = steps(2, middle)
    for _ in range(2):
        restore_scheduler(scheduler, state)
        assert torch.equal(steps(2, middle), end)


def test_what_came_later_goes_and_methods_stay() -> None:
    scheduler: Any = PNDMScheduler()
    state = scheduler_state(scheduler)
    scheduler.later = 1
    replaced = scheduler.step = lambda: None
    config = scheduler.config
    restore_scheduler(scheduler, state)
    assert not hasattr(scheduler, "later") and scheduler.step is replaced and scheduler.config == config


def test_a_scheduler_that_holds_more_than_values_has_no_copy() -> None:
    scheduler: Any = PNDMScheduler()
    scheduler.sampler = lambda: None
    with pytest.raises(NotPlainError):
        scheduler_state(scheduler)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, "1"),
        (True, 1),
        (["a", "b"], ["a,b"]),
        (["a'", "b"], ["a", "'b"]),
        ([[1], 2], [[1, 2]]),
        ({"a": 1}, {"a": 2}),
        (0.1, 0.1 + 2**-54),
        (None, "None"),
        (torch.zeros(2), torch.zeros(2, 1)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.int32)),
        (np.zeros(2), np.array([0.0, -0.0])),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
        (torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)),
    ],
)
def test_what_differs_is_told_differently(one: Any, other: Any) -> None:
    assert canonical_form(one, arrays=True) == canonical_form(one, arrays=True) != canonical_form(other, arrays=True)


def test_a_generator_is_told_by_its_state() -> None:
    one, other = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    assert canonical_form(one, arrays=False) == canonical_form(other, arrays=False)
    torch.rand(1, generator=one)
    assert canonical_form(one, arrays=False) != canonical_form(other, arrays=False)


@pytest.mark.parametrize("value", [object(), torch.zeros(1), np.zeros(1), [torch.zeros(1)], {"a": print}])
def test_other_values_are_not_told(value: Any) -> None:
    with pytest.raises(NotPlainError):
        canonical_form(value, arrays=False)


def test_emptied_takes_no_memory_and_filled_does() -> None:
    output = {"sample": torch.ones(3, 4), "rest": [None, 2]}
    empty = emptied(output)
    assert empty["sample"].untyped_storage().nbytes() == 4 and empty["rest"] == [None, 2]
    full = filled(empty)["sample"]
    assert full.shape == (3, 4) and full.dtype == torch.float32 and full.add_(1).sum() == 12
