"""Files that narrow, widen or fix knobs of a search space.

A TOML file with a table ``knobs``: a whole number fixes a knob, a pair is the range to search, both ends included::

    [knobs]
    interval = [2, 10]
    guidance_stop = 20
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autotune.core.errors import InputError, did_you_mean, reason_of

__all__ = ["ENGINES", "KNOBS", "engine_named", "ranges_in", "read_ranges"]

ENGINES = ("cache-dit",)
"""What ``--space`` takes in place of a file: see :mod:`search_spaces.engines`."""

KNOBS = "knobs"
"""Name of the table."""


def engine_named(space: object) -> str | None:
    """The engine that a text, given in place of a file, narrows the space to; None where it names none.

    A file of that name counts as a file.
    """
    named = isinstance(space, str | os.PathLike) and str(space) in ENGINES and not Path(space).exists()
    return str(space) if named else None


def read_ranges(path: str | os.PathLike[str]) -> Mapping[str, tuple[int, int]]:
    """The ranges in a file, for :meth:`search_spaces.SearchSpace.within`, which knows what the names mean.

    Raises:
        InputError: the file is missing, not TOML, or holds something else.
    """
    path = Path(path)
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        known = f", or name an engine: {', '.join(ENGINES)}"
        raise InputError(f"Cannot read the search space {path}: {error.strerror}; give a TOML file{known}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not a TOML file ({reason_of(error)}).") from error
    for key in document:
        if key != KNOBS:
            raise InputError(f"{path}: {key!r} means nothing here{did_you_mean(key, [KNOBS])}")
    return ranges_in(document, path)


def ranges_in(document: Mapping[str, Any], path: Path) -> Mapping[str, tuple[int, int]]:
    """The ranges in the table ``knobs`` of a TOML document that was read from ``path``.

    Raises:
        InputError: there is none, or it holds something else.
    """
    knobs = document.get(KNOBS)
    if not isinstance(knobs, dict) or not knobs:
        raise InputError(f"{path} changes nothing: write a table [{KNOBS}] with lines such as interval = [2, 10]")
    return {name: _range(path, name, value) for name, value in knobs.items()}


def _range(path: Path, name: str, value: object) -> tuple[int, int]:
    bounds = value if isinstance(value, list) else [value, value]
    # True and false are whole numbers to Python.
    numbers = [bound for bound in bounds if type(bound) is int]
    if len(bounds) != 2 or len(numbers) != 2:
        raise InputError(f"{path}: {KNOBS}.{name} is {value!r}; give a whole number or two, [least, greatest]")
    return numbers[0], numbers[1]
