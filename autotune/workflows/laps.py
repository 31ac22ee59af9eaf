"""How long each part of a run took."""

from __future__ import annotations

import time
from collections.abc import Callable


class Laps:
    """A stopwatch with a name for each lap; laps of one name add up.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._current: tuple[str, float] | None = None

    def begin(self, name: str) -> None:
        """A lap begins, and the one before it ends."""
        self._end()
        self._current = name, self._clock()

    @property
    def seconds(self) -> dict[str, float]:
        """Of each name so far, in the order in which they began."""
        self._end()
        return dict(self._seconds)

    def _end(self) -> None:
        if self._current is None:
            return
        (name, began), now = self._current, self._clock()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - began
        self._current = name, now
