"""Ctrl-C at safe points only.

Python raises KeyboardInterrupt wherever it happens to be; in the middle of a storage call that
leaves the database session unusable, and the study could not be put in order any more.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from autotune.core.errors import PostDiffError

# A signal belongs to the process, and so does the note that one has come.
_pending = threading.Event()


class Interrupted(PostDiffError):
    """The user stopped a run. Nothing is lost: the same call goes on where it stopped."""

    def __init__(self, run_dir: Path, message: str | None = None) -> None:
        super().__init__(message or f"interrupted; everything so far is in {run_dir}, repeat the same command to go on")
        self.run_dir = run_dir


@contextmanager
def deferred() -> Iterator[None]:
    """Inside the block the first Ctrl-C waits for :func:`checkpoint`; a second one is raised at once.

    Without effect outside of the main thread, where no signal arrives, and where Ctrl-C is
    ignored or handled by somebody else already.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return

    def note(number: int, frame: FrameType | None) -> None:
        if _pending.is_set():
            raise KeyboardInterrupt
        _pending.set()

    _pending.clear()
    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _pending.clear()


def checkpoint() -> None:
    """Raise KeyboardInterrupt here if Ctrl-C was pressed since the block began."""
    if _pending.is_set():
        raise KeyboardInterrupt


def pause(seconds: float) -> None:
    """Wait, but not after Ctrl-C."""
    _pending.wait(seconds)
