"""What a comparison of policies found, and its JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from autotune.core.records import write_atomically
from autotune.cost import Cost
from autotune.policy import ContenderQuality, Interval, ModelInfo, Policy

FORMAT: Literal["postdiff-comparison"] = "postdiff-comparison"
VERSION: Literal[1] = 1
LEVEL = 0.95


@dataclass(frozen=True)
class ComparedRun:
    """One run with all that was measured of it. Every interval is a 95 % bootstrap interval over prompts.

    Attributes:
        name: What it is called in this comparison.
        policy: What it ran under.
        cost: Of one picture; ``cost.relative`` is the share of the full run's FLOPs.
        quality: Loss, distance, alignment and distance of features to the full run's pictures.
        psnr: Of its pictures to the full run's, in decibels; identical pictures count as
            :func:`autotune.quality.fidelity.largest_psnr`.
        ssim: Likewise, at most 1.
        identical: Share of its pictures that are the full run's in every value.
        same_as: An earlier run whose policy computes the same, and whose pictures therefore serve for both.
        lpips: Perceptual distance of its pictures to the full run's, lower is closer; None where it was not asked for.
    """

    name: str
    policy: Policy
    cost: Cost
    quality: ContenderQuality
    psnr: Interval
    ssim: Interval
    identical: float
    same_as: str | None = None
    lpips: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "name": self.name,
            "id": self.policy.id,
            "same_as": self.same_as,
            "steps": self.policy.steps,
            "cost": asdict(self.cost),
            **self.quality.model_dump(),
            "psnr": self.psnr.model_dump(),
            "ssim": self.ssim.model_dump(),
            "lpips": None if self.lpips is None else self.lpips.model_dump(),
            "identical": self.identical,
            "policy": self.policy.to_dict(),
        }


@dataclass(frozen=True)
class Pair:
    """Two policies against each other, on the same prompts and seeds.

    Attributes:
        a: Name of one.
        b: Name of the other.
        difference: Loss of ``a`` minus that of ``b``, paired by prompt, with its 95 % interval. It holds for this pair
            alone: of twenty pairs of equal policies one will seem to differ.
        same: Whether both run the same.
    """

    a: str
    b: str
    difference: Interval
    same: bool = False

    @property
    def better(self) -> str | None:
        """Name of the one with the lower loss where the whole interval says so, else None."""
        if self.difference.high < 0:
            return self.a
        return self.b if self.difference.low > 0 else None

    @property
    def sentence(self) -> str:
        """What was found, in words that claim no more."""
        if self.same:
            return f"{self.a} and {self.b} cannot be told apart: they run the same."
        if self.better is None:
            return f"{self.a} and {self.b} cannot be told apart: their losses differ by {_seen(self.difference)}."
        turned = Interval(value=-self.difference.value, low=-self.difference.high, high=-self.difference.low)
        worse, seen = (self.b, self.difference) if self.better == self.a else (self.a, turned)
        return f"{self.better} is better than {worse}: its loss differs by {_seen(seen)}."

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "a": self.a,
            "b": self.b,
            "difference": self.difference.model_dump(),
            "better": self.better,
            "same": self.same,
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class Conditions:
    """What all runs of a comparison share.

    Attributes:
        model: The pipeline; its ``full_steps`` are the full run's.
        weights_digest: Of the pipeline's weights, device and dtype.
        height: Pixels.
        width: Pixels.
        guidance_scale: Of classifier-free guidance; None where there is none.
        batch_size: Pictures per pipeline call.
        prompts: How many different inputs, such as prompts.
        images: Pictures of each run.
        seed: Decides the choice of prompts.
        first_seed: Of the first picture; each further one takes the next.
        scorer: The image-text model, and what is in it; None where nothing needed one.
        network: What the distance is taken in, likewise; None is the scorer.
        lpips: Backbone of LPIPS; None where it was not asked for.
        reference: What the distance is taken to.
        estimator: Of the distance.
        weights: Of the loss's terms.
        device: Where the pictures were made.
        versions: Of the software that made them.
        noun: What the inputs are: prompts, classes, seeds or anything else.
        call: What every call of the pipeline was given besides, pictures by their content.
    """

    model: ModelInfo
    weights_digest: str
    height: int
    width: int
    guidance_scale: float | None
    batch_size: int
    prompts: int
    images: int
    seed: int
    first_seed: int
    scorer: str | None
    network: str | None
    lpips: str | None
    reference: str
    estimator: str
    weights: Mapping[str, float]
    device: str
    versions: Mapping[str, str]
    noun: str = "prompts"
    call: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {each.name: getattr(self, each.name) for each in fields(self)} | {
            "model": self.model.model_dump(),
            "weights": dict(self.weights),
            "versions": dict(self.versions),
            "call": dict(self.call),
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """What a comparison found.

    Attributes:
        conditions: What all runs share.
        full: The full run.
        runs: The policies, in the order given.
        pairs: Every two policies against each other.
        preview_prompts: The first inputs as people read them: a prompt is itself.
        preview_inputs: Pictures among them, (n, 3, H, W) uint8 of the compared size, by the names of their arguments.
        previews: Pictures of these, (n, 3, H, W) uint8, of the full run and then of each of ``runs``.
        run_dir: Holds ``compare.json``, and ``batches/`` that a repeated call takes up.
        notes: What a reader should know of the conditions.
    """

    conditions: Conditions
    full: ComparedRun
    runs: tuple[ComparedRun, ...]
    pairs: tuple[Pair, ...]
    preview_prompts: tuple[str, ...]
    previews: tuple[Tensor, ...]
    run_dir: Path
    notes: tuple[str, ...] = ()
    preview_inputs: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is found of every pair."""
        return tuple(pair.sentence for pair in self.pairs)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the same for the same call, interrupted or not."""
        return {
            "format": FORMAT,
            "version": VERSION,
            **self.conditions.to_dict(),
            "level": LEVEL,
            "runs": [run.to_dict() for run in (self.full, *self.runs)],
            "pairs": [pair.to_dict() for pair in self.pairs],
            "notes": list(self.notes),
        }

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")


def _seen(difference: Interval) -> str:
    return f"{difference.value:+.3f} (95 % interval {difference.low:+.3f} to {difference.high:+.3f})"
