"""Errors a user can cause, each carrying one sentence that names the thing and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PostDiffError(Exception):
    """Base of all errors this package raises on purpose."""


class InputError(PostDiffError, ValueError):
    """Something the caller passed (an option, a file, a path) cannot be used."""


class Unavailable(PostDiffError):
    """Something outside of the program (a disk, a database) gave out. Nothing is lost: the same call goes on later."""


class PolicyError(InputError):
    """A policy is malformed, or does not fit the pipeline it is applied to."""


def reason_of(error: BaseException, longest: int = 160) -> str:
    """The first line of what a library says went wrong, short enough for the middle of a sentence."""
    lines = str(error).strip().splitlines()
    reason = lines[0].rstrip(". ") if lines else type(error).__name__
    return reason if len(reason) <= longest else f"{reason[: longest - 3]}..."


def did_you_mean(word: str, choices: Iterable[str], most: int = 1) -> str:
    """A trailing hint such as ``; did you mean 'steps'?``, or the list of choices when none is close.

    Args:
        word: What was given.
        choices: What could have been.
        most: How many of those that are close to name, the closest first.
    """
    names = sorted(set(choices))
    close = [repr(name) for name in difflib.get_close_matches(word, names, n=most, cutoff=0.5)]
    if close:
        *others, last = close
        return f"; did you mean {', '.join(others)} or {last}?" if others else f"; did you mean {last}?"
    return f"; valid: {', '.join(names)}" if names else ""
