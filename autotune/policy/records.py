"""What a policy's file records besides what is executed: its model, what it costs, how it scored, where it is from."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from autotune.core.interval import Interval
from autotune.core.records import Count, GrownRecord, Record, Text
from autotune.policy.fields import MAX_STEPS, Integer, Pixels


class ModelInfo(Record):
    """What the policy was made for, and what its costs are relative to.

    Fingerprints are hashes of the configs that shape the computation, not of weights.
    ``full_steps`` is the number of steps of the *full run*: native size, guidance at every
    step, nothing reused.
    """

    pipeline: Text
    denoiser: Text
    denoiser_fingerprint: Text
    scheduler: Text
    scheduler_fingerprint: Text
    height: Pixels
    width: Pixels
    full_steps: Annotated[int, Field(ge=1, le=MAX_STEPS)]


class MeasuredTime(Record):
    """Pipeline time against the full run, both taken alternately in one session."""

    device: Text
    batch_size: Annotated[Count, Field(ge=1)]
    ms_per_image: Annotated[float, Field(gt=0)]
    relative: Annotated[float, Field(gt=0)]


class PredictedTime(Record):
    """Milliseconds of a pipeline call by a hardware profile, and as a share of the full run's.

    ``profile`` is the date of the profile, ``dtype`` and ``compile`` what it was taken with.
    """

    device: Text
    dtype: Text
    compile: Text
    batch_size: Annotated[Count, Field(ge=1)]
    ms: Annotated[float, Field(gt=0)]
    relative: Annotated[float, Field(gt=0)]
    profile: Text


class PolicyCost(Record):
    """FLOPs of the denoising loop for one image (two per multiply-add), and times predicted and measured."""

    flops: Count
    macs_conv_linear: Count
    relative: Annotated[float, Field(ge=0)]
    cache_bytes: Count
    predicted: Annotated[tuple[PredictedTime, ...], Field(strict=False)] = ()
    measured: Annotated[tuple[MeasuredTime, ...], Field(strict=False)] = ()


class ContenderQuality(GrownRecord):
    """Held-out scores of one run: objective, distance to the reference, image-text cosine, distance to the full run.

    ``fidelity`` is the mean distance of the pictures' features to the full run's, one minus their cosine. The
    cosine of ``alignment`` is better when it is higher, all others when they are lower; None where there were no
    prompts to match (version 2). ``error`` is the mean difference of the pictures from those of the exact run of the
    same intent, 0, to its coarse pictures, 1; None where no judge of pairs was asked (else version 2).
    """

    later_keys: ClassVar[frozenset[str]] = frozenset({"error"})

    loss: Interval
    distance: Interval
    alignment: Interval | None
    fidelity: Interval
    error: Interval | None = None


class Certificate(Record):
    """A floor that the policy was chosen for as the cheapest to hold it, and what held-out pictures showed of it.

    ``loss`` and ``change`` are None where there is no floor under them. The upper end of each interval is at most the
    floor; ``level`` is what the intervals hold with. The full run, which is exported where nothing cheaper holds the
    floor, has neither loss nor change.
    """

    max_loss: Annotated[float, Field(ge=0)] | None
    max_change: Annotated[float, Field(ge=0)] | None
    loss: Interval | None
    change: Interval | None
    level: Annotated[float, Field(gt=0, lt=1)]


class PolicyQuality(GrownRecord):
    """Held-out quality of the policy, of the full run and of fewer steps at the same cost.

    ``difference`` is loss(policy) - loss(fewer steps), paired by prompt: the policy is better
    with confidence when its whole interval lies below zero. ``guidance_scale`` is the one the
    pictures were made with; None is the pipeline's default. ``scorer`` is the image-text model
    (None where it had nothing to judge; version 2), ``estimator`` the distance to the reference,
    taken in the features of ``network`` (None: the scorer's), ``weights`` those of the
    objective's terms. ``fewer_steps_policy`` is the id of the fewer steps where they are not the
    pipeline's own (version 2). ``certificate`` is there where a floor was asked for (version 2).
    """

    later_keys: ClassVar[frozenset[str]] = frozenset({"fewer_steps_policy", "certificate"})

    prompts: Annotated[Count, Field(ge=1)]
    images: Annotated[Count, Field(ge=1)]
    scorer: Text | None
    network: Text | None = None
    estimator: Text
    weights: dict[Text, float]
    guidance_scale: float | None = None
    policy: ContenderQuality
    full: ContenderQuality
    fewer_steps: ContenderQuality
    fewer_steps_count: Annotated[int, Field(ge=1, le=MAX_STEPS)]
    difference: Interval
    fewer_steps_policy: Text | None = None
    certificate: Certificate | None = None


class Provenance(Record):
    """Where the policy comes from. ``checksum`` covers the whole file except itself."""

    study: Text | None = None
    trial: Integer | None = None
    seed: Integer | None = None
    date: Text | None = None
    versions: dict[Text, Text] = {}
    checksum: Text | None = None
