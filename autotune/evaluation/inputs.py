"""What a search asks a pipeline for, row by row: prompts, classes, pictures to start from, or nothing but seeds."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from autotune.core.errors import InputError
from autotune.core.records import shown
from autotune.evaluation.input_pictures import Picture, is_image, picture_in_memory, read_picture
from autotune.options.given import AnyInputs
from autotune.quality.prompts import lines_of, read_text, split

PROMPT, CLASS = "prompt", "class_label"

_TEXT = re.compile(r"(negative_)?prompt(_\d)?")
_PICTURE = re.compile(r"(\w+_)?image")
# One for the whole call, as adapters see it.
_SHARED_PICTURE = re.compile(r"(\w+_)?ip_adapter_image")
# How a picture's place is told to other processes.
_PATH, _DIGEST = "picture", "digest"


def is_text(name: str) -> bool:
    """Whether an argument of that name is a text for each picture."""
    return _TEXT.fullmatch(name) is not None


def is_picture(name: str) -> bool:
    """Whether an argument of that name is a picture."""
    return _PICTURE.fullmatch(name) is not None


def differs_by_row(name: str) -> bool:
    """Whether pipelines take an argument of that name for each picture, and not once a call."""
    return is_text(name) or name == CLASS or (is_picture(name) and _SHARED_PICTURE.fullmatch(name) is None)


@dataclass(frozen=True)
class Row:
    """One request to a pipeline, as far as the tuner does not make it up.

    Attributes:
        arguments: By the names of the pipeline's call, with ``class_label`` for one of its ``class_labels``. Pictures
            are :class:`~autotune.evaluation.input_pictures.Picture`, those of several adapters tuples of them, all
            others what JSON can hold.
        name: What people call it; None is made of the arguments. It tells rows apart that have none.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    name: str | None = None

    @property
    def prompt(self) -> str | None:
        """The prompt, if it has one that says something."""
        return self.arguments.get(PROMPT) or None

    @property
    def pictures(self) -> dict[str, Picture]:
        """Its pictures by the names of their arguments."""
        return {name: value for name, value in self.arguments.items() if isinstance(value, Picture)}

    @cached_property
    def key(self) -> str:
        """Text that is the same for rows that ask for the same: of a prompt alone the prompt itself."""
        if self.arguments.keys() == {PROMPT}:
            return str(self.arguments[PROMPT])
        return canonical(self.arguments) if self.arguments else self.name or ""

    @property
    def label(self) -> str:
        """What people read."""
        if self.name is not None:
            return self.name
        names = [picture.name for picture in self.pictures.values()][:1]
        if self.prompt is not None:
            return f"{self.prompt} ({names[0]})" if names else self.prompt
        if names:
            return names[0]
        return f"class {self.arguments[CLASS]}" if CLASS in self.arguments else self.key


@dataclass(frozen=True)
class Inputs:
    """Rows of one kind that a pipeline takes, and what all its calls are given besides.

    Attributes:
        rows: Empty where a picture takes nothing but a seed.
        call: Arguments that a call takes once, by name.
    """

    rows: tuple[Row, ...]
    call: Mapping[str, Any] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """What the rows are, for people."""
        return noun_of(self.rows)

    @property
    def keys(self) -> frozenset[str]:
        """Names of the arguments that rows have."""
        return frozenset(self.rows[0].arguments) if self.rows else frozenset()

    def split(self) -> tuple[Inputs, Inputs]:
        """Rows to tune on and rows to judge the result on, as :func:`autotune.quality.split` does with prompts."""
        tuning = set(split([row.key for row in self.rows])[0])
        sides = (tuple(row for row in self.rows if (row.key in tuning) is wanted) for wanted in (True, False))
        kept, aside = (replace(self, rows=rows) for rows in sides)
        return kept, aside


def noun_of(rows: Sequence[Row]) -> str:
    """``prompts``, ``classes``, ``seeds`` or, of anything else, ``inputs``."""
    kinds = {tuple(sorted(row.arguments)) for row in rows}
    return {(PROMPT,): "prompts", (CLASS,): "classes", (): "seeds"}.get(kinds.pop() if kinds else (), "inputs")


def rows_of_prompts(prompts: Sequence[str]) -> tuple[Row, ...]:
    """A row for each prompt.

    Example:
        >>> [row.key for row in rows_of_prompts(["a red apple"])]
        ['a red apple']
    """
    return tuple(Row({PROMPT: prompt}) for prompt in prompts)


def seed_rows(count: int) -> tuple[Row, ...]:
    """Rows of pictures that take nothing but a seed."""
    return tuple(Row(name=f"seed row {number}") for number in range(1, count + 1))


def say_different(rows: Sequence[Row]) -> bool:
    """Whether rows have prompts of which one says something else than another.

    Otherwise a picture has no wrong prompt, and nobody can tell whether it matches its own better.
    """
    return all(row.prompt for row in rows) and len({row.prompt for row in rows}) > 1


def read_rows(inputs: AnyInputs, name: str = "inputs") -> tuple[Row, ...]:
    """Rows of one kind, none of them twice, with their pictures read and checked.

    Args:
        inputs: A JSONL file with an object a line, or a list of such objects; paths of pictures are relative to the
            file. In a list a picture may be one of Pillow's.
        name: What the caller calls them.

    Raises:
        InputError: there is no row, or one cannot be used; the sentence names the row.
    """
    if isinstance(inputs, str | os.PathLike):
        path = Path(inputs)
        return _of_one_kind(path, ((place, _row(place, each, path.parent)) for place, each in _objects(path)))
    placed = ((f"{name}, row {number}", each) for number, each in enumerate(inputs, 1))
    return _of_one_kind(
        name, ((place, each if isinstance(each, Row) else _row(place, each, Path())) for place, each in placed)
    )


def in_memory(rows: Sequence[Row]) -> bool:
    """Whether some picture of the rows is in no file, so that no other process can have it."""
    found: list[Picture] = []
    for row in rows:
        for value in row.arguments.values():
            with_pictures(value, found.append)
    return any(picture.path is None for picture in found)


def to_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows for another process, which :func:`read_rows` turns back into them if the files are there as here."""
    return [{name: _told(value) for name, value in row.arguments.items()} for row in rows]


def canonical(arguments: Mapping[str, Any]) -> str:
    """Text that is the same for the same arguments, wherever their pictures lie."""
    return json.dumps(plain(arguments), sort_keys=True, ensure_ascii=False)


def plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments as JSON can hold them, pictures by their content."""
    return {
        name: with_pictures(value, lambda picture: f"picture {picture.digest}") for name, value in arguments.items()
    }


def with_pictures(value: Any, act: Callable[[Picture], Any]) -> Any:
    """An argument's value with what ``act`` makes of its picture, or in a list of each of its pictures."""
    if isinstance(value, Picture):
        return act(value)
    if isinstance(value, tuple) and any(isinstance(each, Picture) for each in value):
        return [act(picture) for picture in value]
    return value


def _told(value: Any) -> Any:
    return with_pictures(value, lambda picture: {_PATH: str(picture.path), _DIGEST: picture.digest})


def _objects(path: Path) -> Iterator[tuple[str, Any]]:
    """Where every line is, and what it holds."""
    try:
        lines = lines_of(read_text(path, "inputs"))
    except ValueError as error:
        raise error if isinstance(error, InputError) else InputError(f"{path}: {error}") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            yield place, json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: is not JSON ({error.msg}); write one object a line") from None
        except RecursionError:
            raise InputError(f"{place}: is nested too deeply; write one flat object a line") from None


def _of_one_kind(source: object, placed: Iterator[tuple[str, Row]]) -> tuple[Row, ...]:
    """Rows without repetitions, if there are any and all have the same keys."""
    rows: dict[str, Row] = {}
    first: tuple[str, Row] | None = None
    for place, row in placed:
        first = first or (place, row)
        odd = sorted(row.arguments.keys() ^ first[1].arguments.keys())
        if odd:
            has, lacks = (place, first[0]) if odd[0] in row.arguments else (first[0], place)
            raise InputError(f"{has} has {odd[0]!r} and {lacks} has not; give all inputs the same keys")
        rows.setdefault(row.key, row)
    if not rows:
        raise InputError(f'{source}: holds no input; write one JSON object a line, such as {{"prompt": "a red apple"}}')
    return tuple(rows.values())


def _row(place: str, given: object, folder: Path) -> Row:
    if not isinstance(given, Mapping):
        raise InputError(f'{place}: is {shown(given)}; write an object, such as {{"prompt": "a red apple"}}')
    return Row({str(name): _argument(f"{place}: {name}", str(name), value, folder) for name, value in given.items()})


def _argument(place: str, name: str, value: Any, folder: Path) -> Any:
    """A value as rows hold it."""
    if is_picture(name):
        return _pictures(place, name, value, folder)
    if is_text(name):
        return _text(place, value)
    if name == CLASS and (not isinstance(value, int) or isinstance(value, bool)):
        raise InputError(f"{place} is {shown(value)}; give the number of a class")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise InputError(f"{place} is {shown(value)}; give what JSON can hold, such as a text or a number") from None
    return value


def _pictures(place: str, name: str, value: Any, folder: Path) -> Picture | tuple[Picture, ...]:
    """A picture, or for several adapters as many."""
    if differs_by_row(name) or not isinstance(value, list | tuple):
        return _picture(place, value, folder)
    if not value:
        raise InputError(f"{place} is an empty list; give a picture for each adapter")
    return tuple(_picture(f"{place} {number}", each, folder) for number, each in enumerate(value, 1))


def _picture(place: str, value: Any, folder: Path) -> Picture:
    try:
        if isinstance(value, str | os.PathLike):
            return read_picture(folder / value)
        if is_image(value):
            return picture_in_memory(value)
        if isinstance(value, Mapping) and value.keys() == {_PATH, _DIGEST}:
            return _same_picture(Path(value[_PATH]), value[_DIGEST])
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    if isinstance(value, Picture):
        return value
    raise InputError(f"{place} is {shown(value)}; give the path of a picture")


def _same_picture(path: Path, digest: str) -> Picture:
    found = read_picture(path)
    if found.digest != digest:
        raise InputError(f"{path}: holds another picture here than where the search began; copy that one here")
    return found


def _text(place: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{place} is {shown(value)}; give a text in quotes")
    # Escapes such as \ud800 can spell what no text may hold.
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InputError(f"{place} holds half of a surrogate pair; write the whole character")
    return unicodedata.normalize("NFC", value.strip())
