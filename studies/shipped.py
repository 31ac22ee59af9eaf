"""The shipped models as studies search them: with the prompts and judges that belong to them."""

from __future__ import annotations

from typing import Any

import torch

from autotune.evaluation.judges import shipped_judges
from autotune.models.shipped import demo_assets, demo_pipeline
from autotune.runtime.models import denoiser_of

BATCH = 32
"""Pictures per pipeline call."""


def fast_pipeline(model: str) -> Any:
    """A quarter faster on a CPU; the last bits of pictures may differ."""
    pipe = demo_pipeline(model)
    for part in (denoiser_of(pipe), pipe.vae):
        part.to(memory_format=torch.channels_last)
    return pipe


def search_settings(model: str) -> dict[str, Any]:
    """What :func:`autotune.tune_budgets` and ``prepare`` take of a shipped model, besides its pipeline and a budget."""
    assets = demo_assets(model)
    scorer, reference = shipped_judges(model, None, None, None)
    prompts, held_out = assets.search_prompts()
    return {
        "prompts": prompts,
        "held_out": held_out,
        "scorer": scorer,
        "reference": reference,
        "steps": assets.full_steps,
        "guidance_scale": assets.guidance_scale,
        "batch_size": BATCH,
    }
