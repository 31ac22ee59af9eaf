"""Workers that a search starts for itself, as it sees them: who starts them need not be known here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

Notice = Callable[[str], None]
"""Shows a sentence to the user, beside whatever progress is shown."""


class Helpers(Protocol):
    """Starts workers on a run's studies. They work while the block lasts and are gone after it."""

    def __call__(self, url: str, run: str, folder: Path, notice: Notice) -> AbstractContextManager[None]:
        """Workers for the run ``run`` in the storage ``url``, with pictures in ``folder``."""
