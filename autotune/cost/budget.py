"""Budgets as people write them: ``40%``, ``1.2TFLOPs``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from autotune.errors import InputError

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_NUMBER = r"(?P<number>\d+(?:\.\d+)?|\.\d+)"
_SHARE = re.compile(_NUMBER + r"\s*%")
_FLOPS = re.compile(_NUMBER + r"\s*(?P<unit>[kmgtp]?)flops?", re.IGNORECASE)
_LATENCY = re.compile(_NUMBER + r"\s*(%\s*ms|ms|s|x)", re.IGNORECASE)
_EXAMPLES = "write a share of the full run such as 40%, or FLOPs for one image such as 1.2TFLOPs"


@dataclass(frozen=True)
class Budget:
    """An upper bound on the FLOPs of the denoising loop for one image.

    Exactly one of ``share`` (of the full run, in (0, 1]) and ``flops`` is set.
    """

    text: str
    share: Fraction | None = None
    flops: int | None = None

    def limit(self, full_flops: int) -> int:
        """The most FLOPs a policy may take, given those of the full run."""
        if self.flops is not None:
            return self.flops
        assert self.share is not None
        return math.floor(self.share * full_flops)

    def __str__(self) -> str:
        return self.text


def parse_budget(text: str) -> Budget:
    """Read a budget.

    Raises:
        InputError: it is malformed, zero, or above the full run.

    Example:
        >>> parse_budget("40%").limit(1000)
        400
    """
    written = text.strip()
    if match := _SHARE.fullmatch(written):
        share = Fraction(Decimal(match["number"])) / 100
        if not 0 < share <= 1:
            raise InputError(f"budget {written!r} must lie above 0% and at most at 100% of the full run")
        return Budget(written, share=share)
    if match := _FLOPS.fullmatch(written):
        flops = int(Decimal(match["number"]) * _UNITS[match["unit"].lower()])
        if flops == 0:
            raise InputError(f"budget {written!r} leaves nothing to compute: {_EXAMPLES}")
        return Budget(written, flops=flops)
    if _LATENCY.fullmatch(written):
        raise InputError(
            f"budget {written!r} is a time, which needs a hardware profile and is not supported yet: {_EXAMPLES}"
        )
    raise InputError(f"budget {written!r} is not understood: {_EXAMPLES}")
