"""Writing to a study while pictures are made, instead of before."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any


class WriteQueue:
    """Calls that a thread of its own makes, one after the other.

    Optuna asks of storages no more than that a trial's attributes are written before its state is.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "writes to the study")
        self._calls: list[Future[Any]] = []

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._calls.append(self._thread.submit(function, *arguments))

    def settle(self) -> None:
        """Wait until all is written, and raise what went wrong."""
        calls, self._calls = self._calls, []
        for call in calls:
            call.result()

    def drop(self) -> None:
        """Forget what is not written yet."""
        calls, self._calls = self._calls, []
        for call in reversed(calls):
            call.cancel()
        wait(calls)
