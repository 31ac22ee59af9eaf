"""``finalists.json`` as it is read again: what the last round measured of every run in it."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from autotune.core.errors import InputError
from autotune.core.records import Record
from autotune.policy import ContenderQuality, Interval, MeasuredTime, Policy

FILE = "finalists.json"


class FinalistCost(Record):
    """FLOPs of one picture; time and memory of a call in deployment."""

    flops: int
    macs_conv_linear: int
    relative: float
    latency_ms: float | None
    cache_bytes: int
    latent_bytes: int


class Finalist(Record):
    """One run of the last round."""

    name: str
    trial: int | None
    study: str | None = None
    id: str
    policy: Policy
    cost: FinalistCost
    quality: ContenderQuality
    time: MeasuredTime | None


class LastRound(Record):
    """``finalists.json``; ``contenders`` are the full run, fewer steps, and the candidates, best first."""

    verdict: str
    difference: Interval
    prompts: int
    images: int
    winner: str
    contenders: tuple[Finalist, ...]

    @property
    def full(self) -> Finalist:
        return self.contenders[0]

    @property
    def fewer_steps(self) -> Finalist:
        return self.contenders[1]

    @property
    def exported(self) -> Finalist:
        return next(each for each in self.contenders if each.name == self.winner)

    def title_of(self, run: Finalist) -> str:
        """What a reader calls it."""
        if run.trial is None or run.name == self.fewer_steps.name:
            return run.name
        if run.name == self.winner:
            return f"policy, {run.name}"
        return f"best policy found, {run.name}" if run == self.contenders[2] else run.name

    @property
    def headline_runs(self) -> tuple[Finalist, ...]:
        """The full run, fewer steps and, where there is one, the best candidate."""
        return self.contenders[:3]


def read_last_round(path: Path) -> LastRound | None:
    """The last round in a file; None where there is none.

    Raises:
        InputError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        return LastRound.model_validate_json(path.read_bytes())
    except (OSError, ValidationError, json.JSONDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}); repeat the search, which writes it anew"
        ) from error
