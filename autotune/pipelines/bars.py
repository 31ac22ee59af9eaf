"""The bars that pipelines draw for every call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_bars(pipe: Any) -> Iterator[None]:
    """Calls draw no bar until the block ends, so that the only progress shown is that of the work they are part of."""
    before = getattr(pipe, "_progress_bar_config", {})
    pipe.set_progress_bar_config(disable=True)
    try:
        yield
    finally:
        pipe.set_progress_bar_config(**before)
