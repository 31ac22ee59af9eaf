"""The checked options of ``postdiff tune`` and ``compare``, apart from these so that checking loads nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.cli.models import DType, ModelSource

if TYPE_CHECKING:
    from autotune.cost import Profile
    from autotune.evaluation.inputs import Row
    from autotune.policy import Policy
    from autotune.quality.lpips import Backbone


@dataclass(frozen=True)
class JudgeOptions:
    """Who judges, and by what; None leaves it to the model or the default."""

    scorer: str | None
    features: str | None
    objective: str
    weight_fd: float | None
    weight_clip: float | None


@dataclass(frozen=True)
class TuneOptions:
    """The checked options of one run; None leaves a value to the model."""

    source: ModelSource
    budgets: tuple[str, ...]
    prompts: list[str] | None
    inputs: tuple[Row, ...] | None
    reference: Path | None
    judges: JudgeOptions
    height: int | None
    width: int | None
    steps: int | None
    guidance_scale: float | None
    trials: int
    timeout: float
    images: int
    held_out_images: int | None
    batch_size: int
    seed: int
    space: Mapping[str, tuple[int, int]] | None
    sampler: str
    early_stopping: bool | None
    target: Profile | None
    call_batch: int | None
    max_cache_memory: str | None
    device: str
    dtype: DType
    storage: str | None
    study_name: str
    out: Path
    explain: bool
    quiet: bool


@dataclass(frozen=True)
class CompareOptions:
    """The checked options of a comparison; None leaves a value to the model."""

    source: ModelSource
    policies: Mapping[str, Policy]
    prompts: list[str] | None
    inputs: tuple[Row, ...] | None
    images: int
    reference: Path | None
    judges: JudgeOptions
    lpips: Backbone | None
    height: int | None
    width: int | None
    steps: int | None
    guidance_scale: float | None
    batch_size: int
    seed: int
    device: str
    dtype: DType
    out: Path
    as_json: bool
    quiet: bool
