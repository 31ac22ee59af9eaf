"""Errors a user can cause, each carrying one sentence that names the thing and the remedy."""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable

_OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class PostDiffError(Exception):
    """Base of all errors this package raises on purpose."""


class InputError(PostDiffError, ValueError):
    """Something the caller passed (an option, a file, a path) cannot be used."""


class Unavailable(PostDiffError):
    """Something outside of the program (a disk, a database) gave out. Nothing is lost: the same call goes on later."""


class RunFailed(PostDiffError):
    """A run that has begun cannot go on, for a reason that could not be known before. What it has written stays."""


class PolicyError(InputError):
    """A policy is malformed, or does not fit the pipeline it is applied to."""


def out_of_space(error: BaseException) -> bool:
    """Whether a file could not be written because its disk is full, or closed for writing."""
    return isinstance(error, OSError) and error.errno in _OUT_OF_SPACE


def reason_of(error: BaseException, longest: int = 160) -> str:
    """The first line of what a library says went wrong, short enough for the middle of a sentence."""
    return _first_line(error, longest) or type(error).__name__


def summary_of(error: BaseException, longest: int = 160) -> str:
    """An error's class and the first line of its message, where it has one.

    Example:
        >>> summary_of(RuntimeError("no  kernel")), summary_of(AssertionError())
        ('RuntimeError: no kernel', 'AssertionError')
    """
    name, line = type(error).__name__, _first_line(error, longest)
    return f"{name}: {line}" if line else name


def _first_line(error: BaseException, longest: int) -> str:
    try:
        lines = str(error).strip().splitlines()
    except Exception:  # The class's own __str__ is broken as well; its name has to do.
        lines = []
    line = " ".join(lines[0].split()).rstrip(". ") if lines else ""
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


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
