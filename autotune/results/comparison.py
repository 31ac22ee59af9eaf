"""What a comparison of policies found, and its JSON document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from autotune.core.interval import NOTHING, Interval
from autotune.core.records import GrownRecord, Record, read_record, write_atomically
from autotune.cost import Cost
from autotune.policy import ContenderQuality, ModelInfo, Policy

if TYPE_CHECKING:
    from torch import Tensor

FILE = "compare.json"
FORMAT: Literal["postdiff-comparison"] = "postdiff-comparison"
VERSION: Literal[1] = 1

LEVEL = 0.95


class ComparedRun(GrownRecord):
    """One run with all that was measured of it. Every interval is a 95 % bootstrap interval over prompts.

    Attributes:
        name: What it is called in this comparison.
        id: Of the policy.
        same_as: An earlier run whose policy computes the same, and whose pictures therefore serve for both.
        steps: Of the policy.
        cost: Of one picture; ``cost.relative`` is the share of the full run's FLOPs.
        loss: The objective.
        distance: To the reference.
        alignment: Mean cosine with the prompts; None where there are none.
        fidelity: Distance of features to the full run's pictures.
        psnr: Of its pictures to the full run's, in decibels; identical pictures count as
            :func:`autotune.quality.fidelity.largest_psnr`.
        ssim: Likewise, at most 1.
        lpips: Perceptual distance of its pictures to the full run's, lower is closer; None where it was not asked for.
        identical: Share of its pictures that are the full run's in every value.
        policy: What it ran under.
        error: Difference from the exact run of the same intent; None where no judge measured it.
    """

    later_keys: ClassVar[frozenset[str]] = frozenset({"error"})

    name: str
    id: str
    same_as: str | None
    steps: int
    cost: Cost
    loss: Interval
    distance: Interval
    alignment: Interval | None
    fidelity: Interval
    psnr: Interval
    ssim: Interval
    lpips: Interval | None
    identical: float
    policy: Policy
    error: Interval | None = None

    @property
    def quality(self) -> ContenderQuality:
        """Loss, distance, alignment and distance of features."""
        return ContenderQuality(
            loss=self.loss,
            distance=self.distance,
            alignment=self.alignment,
            fidelity=self.fidelity,
            error=self.error,
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.model_dump(mode="json")


class Pair(Record):
    """Two policies against each other, on the same prompts and seeds; :func:`pair` makes one.

    Attributes:
        a: Name of one.
        b: Name of the other.
        difference: Loss of ``a`` minus that of ``b``, paired by prompt, with its 95 % interval. It holds for this pair
            alone: of twenty pairs of equal policies one will seem to differ.
        better: Name of the one with the lower loss where the whole interval says so, else None.
        same: Whether both run the same.
        sentence: What was found, in words that claim no more.
    """

    a: str
    b: str
    difference: Interval
    better: str | None
    same: bool
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.model_dump(mode="json")


def pair(a: str, b: str, difference: Interval, needed: int | None = None) -> Pair:
    """Two policies that run differently, by the difference of their losses.

    Args:
        a: Name of one.
        b: Name of the other.
        difference: Loss of ``a`` minus that of ``b``.
        needed: How many different inputs it takes to tell any two apart, where there were fewer; None is enough.
    """
    better = None if needed is not None else a if difference.high < 0 else b if difference.low > 0 else None
    if needed is not None:
        sentence = (
            f"{a} and {b} cannot be told apart by so few inputs, {needed} would be needed: their losses differ by"
            f" {_seen(difference)}."
        )
    elif better is None:
        sentence = f"{a} and {b} cannot be told apart: their losses differ by {_seen(difference)}."
    else:
        turned = Interval(value=-difference.value, low=-difference.high, high=-difference.low)
        worse, seen = (b, difference) if better == a else (a, turned)
        sentence = f"{better} is better than {worse}: its loss differs by {_seen(seen)}."
    return Pair(a=a, b=b, difference=difference, better=better, same=False, sentence=sentence)


def same_pair(a: str, b: str) -> Pair:
    """Two policies that run the same."""
    sentence = f"{a} and {b} cannot be told apart: they run the same."
    return Pair(a=a, b=b, difference=NOTHING, better=None, same=True, sentence=sentence)


class _Head(Record):
    """What every document of this kind begins with."""

    format: Literal["postdiff-comparison"] = FORMAT
    version: Literal[1] = VERSION


class Conditions(Record):
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
    weights: dict[str, float]
    device: str
    versions: dict[str, str]
    noun: str = "prompts"
    call: dict[str, Any] = {}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.model_dump(mode="json")


# Of several bases the last gives the first keys.
class ComparisonRecord(Conditions, _Head):
    """``compare.json``: the conditions, the intervals' level, the full run and then the policies, and their pairs."""

    level: float = LEVEL
    runs: tuple[ComparedRun, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.model_dump(mode="json")

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")


def read_comparison(path: Path) -> ComparisonRecord | None:
    """The comparison in a file; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    return read_record(ComparisonRecord, path, "repeat the comparison, which writes it again")


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

    @property
    def record(self) -> ComparisonRecord:
        """All but the pictures, as files hold it; the same for the same call, interrupted or not."""
        return ComparisonRecord(
            **dict(self.conditions), runs=(self.full, *self.runs), pairs=self.pairs, notes=self.notes
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return self.record.to_dict()

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all."""
        self.record.save(path)


def _seen(difference: Interval) -> str:
    return f"{difference.value:+.3f} (95 % interval {difference.low:+.3f} to {difference.high:+.3f})"
