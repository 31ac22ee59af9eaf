"""What the commands tell the shell."""

from __future__ import annotations

DONE = 0
"""Everything went as asked; of a search: a policy was exported."""

FAILED = 1
"""Something broke: an error nobody foresaw, no memory or disk left, a database away, a worker process that died.

The same command goes on."""

BAD_INPUT = 2
"""Something the user gave cannot be used, and nothing was written."""

NOTHING_FOUND = 3
"""Nothing within the budget beats fewer steps, which were exported.

Under a floor: nothing cheaper than the full run is certified to hold it, and the full run was exported.
"""

INTERRUPTED = 130
"""Ctrl-C, as shells say it; the same command goes on."""

NOBODY_READS = 141
"""Who read the output is gone, as with ``| head``; what shells make of SIGPIPE."""
