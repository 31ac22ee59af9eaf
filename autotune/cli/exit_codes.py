"""What the commands tell the shell."""

from __future__ import annotations

DONE = 0
"""Everything went as asked; of a search: a policy was exported."""

UNAVAILABLE = 1
"""A disk is full, a database away, or a worker process died; the same command goes on later."""

BAD_INPUT = 2
"""Something the user gave cannot be used, and nothing was written."""

FEWER_STEPS_WIN = 3
"""Nothing within the budget beats fewer steps, which were exported."""

INTERRUPTED = 130
"""Ctrl-C, as shells say it; the same command goes on."""
