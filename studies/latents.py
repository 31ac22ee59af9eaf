"""Final latents of a shipped model under policies, and how far they are from another run's, from the same noise.

Nothing is decoded and no network judges: the cheapest measure of error there is. It compares policies that mean the
same, such as places of computing steps; of what a policy means to change, such as guidance, it says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from autotune.policy import Policy
from autotune.quality.bootstrap import interval, resampled
from autotune.runtime import applied
from autotune.runtime.models import recommended

RESAMPLES, _LEVEL = 2000, 0.95


def latents(pipe: Any, policy: Policy, prompts: Sequence[str], *, first_seed: int = 0) -> Tensor:
    """(prompts, ...) float64: what is decoded at the end of a call under the policy, prompt i from seed first + i."""
    card = recommended(pipe)
    generators = [torch.Generator().manual_seed(first_seed + number) for number in range(len(prompts))]
    with applied(pipe, policy):
        made = pipe(
            list(prompts),
            generator=generators,
            output_type="latent",
            guidance_scale=card.guidance_scale,
            **card.call,
        )
    return torch.as_tensor(made.images).double()


def errors(found: Tensor, exact: Tensor) -> Tensor:
    """(prompts,) squared distances relative to the exact latents' squares."""
    return (found - exact).square().flatten(1).sum(1) / exact.square().flatten(1).sum(1)


def mean(values: Tensor) -> tuple[float, float, float]:
    """The mean over prompts with the ends of its 95 % bootstrap interval."""
    rows = torch.arange(len(values))[:, None]
    replicates = torch.cat([values[drawn].mean(1) for drawn in resampled(rows, RESAMPLES, seed=0)])
    found = interval(float(values.mean()), replicates, _LEVEL).rounded()
    return found.value, found.low, found.high
