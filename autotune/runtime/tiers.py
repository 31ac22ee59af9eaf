"""Which of a pipeline's tiers the running code has chosen: a context variable, so that nobody sees another's choice.

A thread begins without choices. An asyncio task begins with those of the code that makes it, and keeps its own to
itself; ``asyncio.to_thread`` hands them on, ``run_in_executor`` and thread pools do not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

# By an object that stands for the pipeline, and holds nothing of it: contexts may live long.
_CHOSEN: ContextVar[tuple[tuple[object, str], ...]] = ContextVar("postdiff_tiers", default=())


@contextmanager
def choosing(key: object, name: str) -> Iterator[None]:
    """Have :func:`chosen` find the name inside a ``with`` block."""
    others = tuple(choice for choice in _CHOSEN.get() if choice[0] is not key)
    token = _CHOSEN.set(((key, name), *others))
    try:
        yield
    finally:
        _CHOSEN.reset(token)


def chosen(key: object) -> str | None:
    """What was chosen for a key by the code around, or None."""
    return next((name for known, name in _CHOSEN.get() if known is key), None)
