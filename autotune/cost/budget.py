"""Budgets as people write them: ``40%``, ``1.2TFLOPs``, ``850ms``, ``40%ms``, ``2x``, and several at once."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

from autotune.core.errors import InputError

if TYPE_CHECKING:
    from autotune.cost.work import Cost

_POWERS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BYTES = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30, "b": 1}
_NUMBER = r"(?P<number>\d+(?:\.\d+)?|\.\d+)\s*"
_EXAMPLES = (
    "write a share of the full run's FLOPs such as 40%, FLOPs for one image such as 1.2TFLOPs, a pipeline call's time"
    " such as 850ms, 1.5s or 40%ms of the full run's, a speed-up such as 2x, or several joined by commas"
)


@dataclass(frozen=True)
class Limits:
    """The most a policy may cost; None is no limit.

    Attributes:
        flops: of the denoising loop, for one image.
        latency_ms: of a pipeline call on the target.
        memory_bytes: of kept features and the latents' growth.
    """

    flops: int | None = None
    latency_ms: float | None = None
    memory_bytes: int | None = None

    def allow(self, cost: Cost) -> bool:
        """Whether everything holds."""
        return self.allow_memory(cost) and all(spent <= limit for spent, limit in self._spent(cost))

    def allow_memory(self, cost: Cost) -> bool:
        return self.memory_bytes is None or cost.memory_bytes <= self.memory_bytes

    def used(self, cost: Cost) -> float:
        """The largest share of a limit on compute or time that is spent; memory is no end in itself."""
        return max(spent / limit for spent, limit in self._spent(cost))

    def _spent(self, cost: Cost) -> list[tuple[float, float]]:
        found: list[tuple[float, float]] = []
        if self.flops is not None:
            found.append((cost.flops, self.flops))
        if self.latency_ms is not None:
            if cost.latency_ms is None:
                raise InputError("a budget in time needs prices on a hardware profile: give a target")
            found.append((cost.latency_ms, self.latency_ms))
        return found

    def __str__(self) -> str:
        parts = [] if self.flops is None else [f"{self.flops / 1e9:.4g} GFLOPs"]
        parts += [] if self.latency_ms is None else [f"{self.latency_ms:.4g} ms"]
        parts += [] if self.memory_bytes is None else [f"{self.memory_bytes / 1e6:.4g} MB of memory"]
        return " and ".join(parts)


@dataclass(frozen=True)
class Bound:
    """One part of a budget: exactly one of the fields is set.

    Attributes:
        flops_share: of the full run's FLOPs, in (0, 1].
        flops: of the denoising loop, for one image.
        latency_share: of the full run's time, in (0, 1].
        latency_ms: of a pipeline call.
    """

    flops_share: Fraction | None = None
    flops: int | None = None
    latency_share: Fraction | None = None
    latency_ms: float | None = None

    @property
    def is_time(self) -> bool:
        return self.latency_share is not None or self.latency_ms is not None


@dataclass(frozen=True)
class Budget:
    """Bounds on what a policy may cost, all of which must hold."""

    text: str
    bounds: tuple[Bound, ...]

    @property
    def needs_latency(self) -> bool:
        """Whether a bound is on time, which takes a hardware profile to price."""
        return any(bound.is_time for bound in self.bounds)

    def limits(self, full: Cost, memory_bytes: int | None = None) -> Limits:
        """The strictest of the bounds of each kind, given what the full run costs.

        Raises:
            InputError: a bound is on time and the full run was priced without a hardware profile.
        """
        flops = [math.floor(b.flops_share * full.flops) for b in self.bounds if b.flops_share is not None]
        flops += [bound.flops for bound in self.bounds if bound.flops is not None]
        times = [bound.latency_ms for bound in self.bounds if bound.latency_ms is not None]
        if self.needs_latency and full.latency_ms is None:
            raise InputError(f"budget {self.text!r} is a time, which needs a hardware profile: give a target")
        if full.latency_ms is not None:
            times += [float(b.latency_share) * full.latency_ms for b in self.bounds if b.latency_share is not None]
        return Limits(min(flops, default=None), min(times, default=None), memory_bytes)

    def __str__(self) -> str:
        return self.text


def parse_budget(text: str) -> Budget:
    """Read a budget.

    Raises:
        InputError: it is malformed, zero, or above the full run.

    Example:
        >>> parse_budget("40%,1.2s").needs_latency
        True
    """
    written = text.strip()
    return Budget(written, tuple(_bound(part.strip(), written) for part in written.split(",")))


def parse_bytes(text: str) -> int:
    """Read an amount of memory: ``500MB`` (10^6), ``1.5GiB`` (2^30).

    Raises:
        InputError: it is malformed or zero.
    """
    match = re.fullmatch(_NUMBER + r"(?P<unit>[kmg]i?b|b)", text.strip(), re.IGNORECASE)
    amount = int(Decimal(match["number"]) * _BYTES[match["unit"].lower()]) if match else 0
    if not amount:
        raise InputError(f"{text.strip()!r} is no amount of memory; write for example 500MB or 1.5GiB")
    return amount


def _bound(part: str, written: str) -> Bound:
    for pattern, read in _FORMS:
        if match := re.fullmatch(_NUMBER + pattern, part, re.IGNORECASE):
            return read(match, part)
    where = f" in {written!r}" if part != written else ""
    raise InputError(f"budget {part!r}{where} is not understood: {_EXAMPLES}")


def _share(match: re.Match[str], part: str) -> Fraction:
    share = Fraction(Decimal(match["number"])) / 100
    if not 0 < share <= 1:
        raise InputError(f"budget {part!r} must lie above 0% and at most at 100% of the full run")
    return share


def _flops(match: re.Match[str], part: str) -> Bound:
    flops = int(Decimal(match["number"]) * _POWERS[match["unit"].lower()])
    if flops == 0:
        raise InputError(f"budget {part!r} leaves nothing to compute: {_EXAMPLES}")
    return Bound(flops=flops)


def _time(match: re.Match[str], part: str) -> Bound:
    milliseconds = float(match["number"]) * (1 if match["unit"].lower() == "ms" else 1000)
    if milliseconds == 0:
        raise InputError(f"budget {part!r} leaves no time: {_EXAMPLES}")
    return Bound(latency_ms=milliseconds)


def _speed_up(match: re.Match[str], part: str) -> Bound:
    factor = Fraction(Decimal(match["number"]))
    if factor < 1:
        raise InputError(f"budget {part!r} is slower than the full run: write a speed-up of 1x or more, such as 2x")
    return Bound(latency_share=1 / factor)


_FORMS: tuple[tuple[str, Callable[[re.Match[str], str], Bound]], ...] = (
    (r"%", lambda match, part: Bound(flops_share=_share(match, part))),
    (r"(?P<unit>[kmgtp]?)flops?", _flops),
    (r"%\s*ms", lambda match, part: Bound(latency_share=_share(match, part))),
    (r"(?P<unit>ms|s)", _time),
    (r"x", _speed_up),
)
