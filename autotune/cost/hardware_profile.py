"""A hardware profile: how long the parts of one model's calls take on one device. Strict JSON, no torch.

:mod:`autotune.cost.profile.measure` makes profiles, :mod:`autotune.cost.latency` predicts from them.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from autotune.core.errors import InputError
from autotune.core.naming import CompileMode
from autotune.core.records import (
    Count,
    Record,
    Text,
    read_document,
    refusal,
    shown,
    to_json,
    validated,
    write_atomically,
)
from autotune.policy import Pixels

FORMAT: Literal["postdiff-profile"] = "postdiff-profile"
VERSION: Literal[1] = 1
# Thousands of units at dozens of sizes.
MAX_BYTES = 32 * 1024 * 1024

Milliseconds = Annotated[float, Field(ge=0)]
Positive = Annotated[int, Field(ge=1, lt=2**31)]


class ProfileError(InputError):
    """A profile is malformed, or is not for what is asked of it."""


class Device(Record):
    """What the times were taken on.

    ``clocks`` is what the driver says of the clocks (present and highest MHz); None where nothing does.
    """

    kind: Literal["cpu", "cuda", "mps"]
    name: Text
    threads: Positive | None = None
    driver: Text | None = None
    cuda: Text | None = None
    clocks: Text | None = None

    @property
    def title(self) -> str:
        """For people."""
        return self.name if self.threads is None else f"{self.name}, {self.threads} threads"


class ProfiledModel(Record):
    """What was timed. Times hold for any weights of the same configs."""

    pipeline: Text
    denoiser: Text
    denoiser_fingerprint: Text
    height: Pixels
    width: Pixels
    frames: Positive = 1
    text_tokens: Count
    guided: bool


class CallTimes(Record):
    """One call of the denoiser.

    Attributes:
        height, width: of the latents.
        branches: guidance branches in the call, of InstructPix2Pix 3; where a pipeline calls once a branch, always 1.
        forward_ms: the whole call, without anything attached to it.
        always_ms: of these, what belongs to no unit and no block.
        units_ms: of every unit, in the structure's order, without the units inside it.
        blocks_ms: of every block, likewise, without its units.
    """

    height: Positive
    width: Positive
    branches: Annotated[int, Field(ge=1, le=3)]
    forward_ms: Annotated[float, Field(gt=0)]
    always_ms: Milliseconds
    units_ms: Annotated[tuple[Milliseconds, ...], Field(strict=False)]
    blocks_ms: Annotated[tuple[Milliseconds, ...], Field(strict=False)]


class Corrections(Record):
    """What a pipeline call takes besides, fitted to the calibration runs.

    Attributes:
        call_ms: once a call of the pipeline, besides text encoder and decoder.
        step_ms: once a step: the scheduler and the pipeline's loop.
        denoiser: a factor on the denoiser's time.
        hook_ms: per unit and denoiser call under a policy that may skip it.
        handoff_ms: once per change of resolution.
    """

    call_ms: Milliseconds
    step_ms: Milliseconds
    denoiser: Annotated[float, Field(gt=0)]
    hook_ms: Milliseconds
    handoff_ms: Milliseconds


class CalibrationRun(Record):
    """A pipeline call that the corrections were fitted to: predicted with them, and measured."""

    policy: Text
    predicted_ms: Milliseconds
    measured_ms: Annotated[float, Field(gt=0)]


class BatchTimes(Record):
    """Calls of the pipeline with ``batch`` pictures."""

    batch: Positive
    text_encoder_ms: Milliseconds
    decoder_ms: Milliseconds
    calls: Annotated[tuple[CallTimes, ...], Field(strict=False, min_length=1)]
    corrections: Corrections
    calibration: Annotated[tuple[CalibrationRun, ...], Field(strict=False)]


class Profile(Record):
    """A hardware profile file, version 1. Times are medians in milliseconds.

    ``launch_ms`` is what starting the smallest operation takes; where calls of a denoiser take
    hardly longer than their operations times this, its speed is Python's and not the device's.
    """

    format: Literal["postdiff-profile"] = FORMAT
    version: Literal[1] = VERSION
    date: Text
    device: Device
    dtype: Text
    compile: CompileMode
    versions: dict[Text, Text]
    model: ProfiledModel
    launch_ms: Milliseconds
    batches: Annotated[tuple[BatchTimes, ...], Field(strict=False, min_length=1)]

    @model_validator(mode="after")
    def _same_units(self) -> Profile:
        first = self.batches[0].calls[0]
        for times in self.batches:
            for call in times.calls:
                if (len(call.units_ms), len(call.blocks_ms)) != (len(first.units_ms), len(first.blocks_ms)):
                    raise ValueError(
                        f"batches: latents of {call.height}x{call.width} at batch {times.batch} have"
                        f" {len(call.units_ms)} units and {len(call.blocks_ms)} blocks, the first have"
                        f" {len(first.units_ms)} and {len(first.blocks_ms)}: profile again"
                    )
        return self

    def of_batch(self, batch: int) -> BatchTimes:
        """The times at ``batch`` pictures a call.

        Raises:
            ProfileError: none were taken.
        """
        for times in self.batches:
            if times.batch == batch:
                return times
        known = ", ".join(str(times.batch) for times in self.batches)
        raise ProfileError(
            f"the profile of {self.device.name} has times for batch {known} and none for {batch}: use one of"
            f" these, or profile with --batch {batch}"
        )

    def check_subject(self, subject: ProfiledModel) -> None:
        """Refuse to predict for anything but what was profiled.

        Raises:
            ProfileError: one sentence that names the difference.
        """
        for name, profiled in self.model:
            asked = getattr(subject, name)
            if asked != profiled:
                raise ProfileError(
                    f"the profile of {self.device.name} is for something else: its {name.replace('_', ' ')} is"
                    f" {shown(profiled)}, here it is {shown(asked)}; profile this model with 'postdiff profile'"
                )

    def doubts(self, *, dtype: str, versions: dict[str, str], device: Device | None = None) -> list[str]:
        """Why its times may not hold, each in a sentence: another precision, release or device than here.

        Args:
            device: what the times are wanted for, where that is known.
        """
        found = []
        if dtype != self.dtype:
            found.append(f"the profile's times are of {self.dtype}, the model here is in {dtype}")
        for package, release in self.versions.items():
            if package in versions and versions[package] != release:
                found.append(f"the profile was taken with {package} {release}, here is {versions[package]}")
        if device is not None and (device.kind, device.name, device.threads) != (
            self.device.kind,
            self.device.name,
            self.device.threads,
        ):
            found.append(f"the profile is of {self.device.title}, this is {device.title}")
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the profile as JSON, whole or not at all."""
        write_atomically(Path(path), self.to_text())

    @property
    def digest(self) -> str:
        """A hash of all it says."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()[:16]

    def to_text(self) -> str:
        """The profile as its file has it."""
        return to_json(self.model_dump(mode="json"))


def load_profile(path: str | os.PathLike[str]) -> Profile:
    """Load and validate a profile file.

    Raises:
        ProfileError: it is missing, unreadable, of another version, or an entry is missing, negative or not finite.
    """
    document = read_document(path, MAX_BYTES, "profile", ProfileError)
    refuse = refusal(str(path), ProfileError)
    if document.get("format") != FORMAT:
        raise refuse(f"not a profile, its 'format' is not {FORMAT!r}; 'postdiff profile' makes one")
    version = document.get("version")
    if type(version) is not int or version != VERSION:
        raise refuse(f"profile version {shown(version)} is unknown, this release reads {VERSION}: profile again")
    return validated(Profile, document, refuse)


def rounded(value: float) -> float:
    """Five digits say all that a clock knows."""
    return float(f"{value:.5g}")
