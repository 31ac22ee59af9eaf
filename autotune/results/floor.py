"""What a search for the cheapest policy above a floor found, as ``finalists.json`` holds it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from autotune.core.interval import Interval
from autotune.core.records import Record
from autotune.policy import Certificate


class Nearest(Record):
    """The first policy of a sequence that was not certified, and what was seen of it.

    Attributes:
        id: Of the policy.
        loss, change: As it was tested; None where there is no floor under it.
        second: Its loss before the second opinion, where that decides besides.
        over: What is above its bound: "loss", "change", "second opinion" or "error".
    """

    id: str
    loss: Interval | None
    change: Interval | None
    second: Interval | None
    over: Annotated[tuple[str, ...], Field(strict=False)]


class FloorFound(Record):
    """What a search for the cheapest policy above a floor found.

    Attributes:
        certificate: Of what is exported. It is the full run's where nothing cheaper was certified.
        met: Whether something cheaper than the full run was.
        budget: That had to hold besides; None where none was given.
        sought: What was to be low: "FLOPs" or "time".
        tested: Policies in the sequence.
        nearest: Is cheaper than what is exported, and was not certified; None where there is none.
    """

    certificate: Certificate
    met: bool
    budget: str | None
    sought: str
    tested: int
    nearest: Nearest | None
