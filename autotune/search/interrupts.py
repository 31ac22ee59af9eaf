"""Ctrl-C at safe points only.

Python raises KeyboardInterrupt wherever it happens to be; in the middle of a storage call that
leaves the database session unusable, and the study could not be put in order any more.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# A signal belongs to the process, and so does the note that one has come.
_pending = threading.Event()


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
