"""Reading lists of prompts, the list shipped for general use, and setting some prompts aside."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from importlib.resources import files
from pathlib import Path

from autotune.core.errors import InputError

__all__ = ["general_categories", "general_prompts", "load_prompts", "split"]

GENERAL = "general"
"""Stands for the shipped prompts where a file of prompts is asked for."""

_COLUMNS = ("prompt", "caption")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_ENCODINGS = "UTF-8, UTF-16 (with byte order mark), Latin-1 or Windows-1252"


def load_prompts(path: str | os.PathLike[str]) -> list[str]:
    """The prompts in a file, in their order, without blank ones and repetitions.

    ``.csv`` needs a column ``prompt`` or ``caption``; ``.jsonl`` holds in each line a string or an
    object with such a key; everything else is text with one prompt per line. The encoding may be
    UTF-8, UTF-16 with a byte order mark, or, without such a mark and if the bytes are not UTF-8,
    Windows-1252, which holds the printable part of Latin-1. Composed and decomposed letters are the same.

    The name ``general``, where no such file is, stands for :func:`general_prompts`.

    Raises:
        InputError: If the file is missing, unreadable, not in its format, or without any prompt.
    """
    path = Path(path)
    if str(path) == GENERAL and not path.is_file():
        return general_prompts()
    read = _READERS.get(path.suffix.lower(), lines_of)
    try:
        stripped = (unicodedata.normalize("NFC", prompt.strip()) for prompt in read(read_text(path, "prompts")))
        prompts = list(dict.fromkeys(filter(None, stripped)))
    except InputError:
        raise
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: {error}.") from error
    if not prompts:
        raise InputError(f"{path} holds no prompt: write one per line.")
    return prompts


def general_prompts() -> list[str]:
    """The shipped prompts for general text-to-image models, about 300, in the order of their categories."""
    return [prompt for prompts in general_categories().values() for prompt in prompts]


def general_categories() -> dict[str, list[str]]:
    """The shipped prompts by what they try: objects, scenes, counts, colours, relations, styles, text, people."""
    text = files("autotune.quality").joinpath(f"{GENERAL}.jsonl").read_text("utf-8")
    categories: dict[str, list[str]] = {}
    for line in text.splitlines():
        entry = json.loads(line)
        categories.setdefault(entry["category"], []).append(entry["prompt"])
    return categories


def split(prompts: Sequence[str], held_out_share: float = 0.25) -> tuple[list[str], list[str]]:
    """Prompts to tune on and prompts to judge the result on.

    Each prompt's side follows from its own SHA-256 alone: adding, removing or reordering others never
    moves it. The shares are therefore approximate, and of very few prompts one side may be empty.

    Returns:
        (tuning, held_out), both in the given order.

    Raises:
        ValueError: If the share is not between 0 and 1.
    """
    if not 0 <= held_out_share <= 1:
        raise ValueError(f"held_out_share is a share between 0 and 1, not {held_out_share}.")
    tuning: list[str] = []
    held_out: list[str] = []
    for prompt in prompts:
        # The prefix makes this split independent of others by hash, such as the one that set captions
        # aside in training: those would otherwise all fall on one side.
        digest = hashlib.sha256(f"postdiff tuning split:{prompt}".encode()).digest()
        part = int.from_bytes(digest[:8], "big") / 2**64
        (held_out if part < held_out_share else tuning).append(prompt)
    return tuning, held_out


def read_text(path: Path, what: str) -> str:
    """The text in a file of ``what``, in one of the encodings that people's editors write.

    Raises:
        InputError: the file is missing or unreadable.
        ValueError: it holds no text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"Cannot read {what} from {path}: {error.strerror}.") from error
    return _decoded(data)


def _decoded(data: bytes) -> str:
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    for encoding in (marked,) if marked else ("utf-8", "cp1252"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise ValueError(f"this is not a text file in {_ENCODINGS}")


def lines_of(text: str) -> list[str]:
    """The lines of a text, ended as on any system."""
    # Not str.splitlines: it also cuts at characters that Latin-1 files hold inside words.
    return re.split(r"\r\n|\r|\n", text)


def _csv(text: str) -> Iterable[str]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = [name.strip().lower() for name in next(rows, [])]
    column = next((header.index(name) for name in _COLUMNS if name in header), None)
    if column is None:
        raise ValueError(f"expected a column called {' or '.join(_COLUMNS)}, found {', '.join(header) or 'none'}")
    return [row[column] for row in rows if len(row) > column]


def _jsonl(text: str) -> Iterable[str]:
    for number, line in enumerate(lines_of(text), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is not JSON ({error.msg})") from error
        except RecursionError as error:
            raise ValueError(f"line {number} is nested too deeply") from error
        if isinstance(value, dict):
            value = next((value[name] for name in _COLUMNS if name in value), None)
        if not isinstance(value, str):
            raise ValueError(f"line {number} is neither a string nor an object with a text {' or '.join(_COLUMNS)}")
        # Escapes such as \ud800 can spell what no text may hold.
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ValueError(f"line {number} holds half of a surrogate pair")
        yield value


_READERS: dict[str, Callable[[str], Iterable[str]]] = {".csv": _csv, ".json": _jsonl, ".jsonl": _jsonl}
