"""Strict records in JSON files: frozen, no unknown keys, no silent conversions, refused in one sentence."""

from __future__ import annotations

import json
import math
import os
import reprlib
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from autotune.core.errors import InputError, did_you_mean, reason_of

MAX_TEXT = 200
MAX_MESSAGE = 300

# Of one_line, for JSON Schemas, which know no Unicode categories.
ONE_LINE = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$"

# Names that unions give their branches, which the author of a file never sees.
NAMED, LISTED = "<name>", "<list>"
# pydantic speaks of Python types, the author of a file knows those of JSON.
_IN_JSON = {
    "tuple_type": "should be a list",
    "dict_type": "should be an object in braces",
    "model_type": "should be an object in braces",
}

R = TypeVar("R", bound="Record")
Refusal = Callable[[str], InputError]


def in_schema(**keywords: Any) -> Any:
    """What a validator asks for, for the JSON Schema of the field."""
    return Field(json_schema_extra=keywords)


def one_line(text: str) -> str:
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in text):
        raise ValueError(f"{shown(text)} holds a line break or another control character, give plain text on one line")
    return text


Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(one_line), in_schema(pattern=ONE_LINE)]
Count = Annotated[int, Field(ge=0, lt=2**63)]


class Record(BaseModel):
    """Frozen, no unknown keys, no silent conversions, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class GrownRecord(Record):
    """A record with keys that its format did not have at first: left out where they say nothing, as earlier readers
    refuse what they do not know.
    """

    later_keys: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_later_keys(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = dump(self)
        return {key: value for key, value in found.items() if value is not None or key not in self.later_keys}


def read_document(path: str | os.PathLike[str], most_bytes: int, kind: str, error: type[InputError]) -> dict[str, Any]:
    """The JSON object in a file, not yet validated.

    Args:
        kind: what the file should be, for the refusal ("policy").
        error: the class of the refusal.

    Raises:
        InputError: of class ``error``; missing, unreadable, larger than ``most_bytes``, or no JSON object.
    """
    refuse = refusal(str(path), error)
    try:
        with open(path, "rb") as file:
            data = file.read(most_bytes + 1)
    except OSError as problem:
        raise refuse(f"cannot be read ({problem.strerror or problem})") from None
    except ValueError:
        raise refuse("cannot be read (this is no path)") from None
    if len(data) > most_bytes:
        raise refuse(f"larger than the {most_bytes} bytes a {kind} file may have")
    return _parse(data, kind, refuse)


def validated(record: type[R], document: Mapping[str, Any], refuse: Refusal) -> R:
    """The record that ``document`` holds.

    Raises:
        InputError: what ``refuse`` makes of one sentence naming the key, the value and the nearest valid choice.
    """
    try:
        return record.model_validate(dict(document))
    except ValidationError as error:
        raise refuse(_first_problem(record, error)) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise refuse(f"not a JSON document: {error}") from None


def read_record(record: type[R], path: Path, remedy: str) -> R | None:
    """The record that a JSON file holds; None where there is no file.

    Args:
        record: of what class.
        path: the file.
        remedy: what to do where it is damaged, for the refusal.

    Raises:
        InputError: the file cannot be read, or holds something else; one sentence names the first problem.
    """
    refuse = refusal(str(path), InputError)
    try:
        return record.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refuse(f"cannot be read ({reason_of(error)}); {remedy}") from error
    except ValidationError as error:
        raise refuse(f"{_first_problem(record, error).removesuffix('?')}; {remedy}") from None


def refusal(source: str, error: type[InputError]) -> Refusal:
    """Makes errors of one line of bounded length, whatever the file or its name holds."""
    name = source if len(source) <= 120 else f"...{source[-117:]}"

    def refuse(problem: str) -> InputError:
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in f"{name}: {problem}")
        return error(text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE - 3]}...")

    return refuse


def to_json(document: Mapping[str, Any]) -> str:
    """One top-level key a line, so that a file stays readable and long lists stay short."""
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in document.items())
    return f"{{\n{lines}\n}}\n"


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` so that ``path`` holds either its old content or all of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def shown(value: object) -> str:
    """The value as its file spells it where that is short."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = 40
    short.maxlevel = 2
    try:
        text = short.repr(value)
    except ValueError:  # An integer too long to be written, or something that holds one.
        return "a number of thousands of digits" if isinstance(value, int) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


class _Unusable:
    """A number that JSON text can spell and a record cannot hold; validation then names its key."""

    def __init__(self, spelled: str) -> None:
        self.spelled = spelled

    def __repr__(self) -> str:
        return self.spelled if len(self.spelled) <= 24 else f"{self.spelled[:12]}... ({len(self.spelled)} digits)"


def _parse(data: bytes, kind: str, refuse: Refusal) -> dict[str, Any]:
    def integer(text: str) -> int | _Unusable:
        # Python refuses to read integers of more than 4,300 digits.
        return int(text) if len(text) <= 100 else _Unusable(text)

    def number(text: str) -> float | _Unusable:
        value = float(text)
        return value if math.isfinite(value) else _Unusable(text)

    def record(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise refuse(f"key {shown(key)} is there twice, keep one of the two")
            found[key] = value
        return found

    try:
        document = json.loads(
            data.decode("utf-8-sig"),
            parse_int=integer,
            parse_float=number,
            parse_constant=_Unusable,
            object_pairs_hook=record,
        )
    except UnicodeDecodeError:
        raise refuse("not a JSON file, it is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise refuse(f"not a JSON file ({error.msg.lower().removesuffix(' at')} at {place})") from None
    except RecursionError:
        raise refuse(f"not a {kind} file, its brackets are nested too deeply") from None
    if not isinstance(document, dict):
        raise refuse(f"not a {kind} file, it holds no JSON object")
    return document


def _first_problem(root: type[Record], error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "json_invalid":
        return "not a JSON file"
    location = [part for part in problem["loc"] if part not in (NAMED, LISTED, "[key]")]
    where = _path(location)
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *parents, key = location
        return f"unknown key {where!r}{did_you_mean(str(key)[:60], _keys_at(root, parents))}"
    if problem["type"] == "missing":
        return f"key {where!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where else message
    message = _IN_JSON.get(problem["type"], message)
    return f"{where or 'a key'} is {shown(problem['input'])}: {message[0].lower()}{message[1:]}"


def _path(location: Iterable[int | str]) -> str:
    path = ".".join(str(part)[:60] for part in location)
    return path if len(path) <= 80 else f"{path[:77]}..."


def _keys_at(root: type[Record], location: list[int | str]) -> list[str]:
    """The valid keys of the record at ``location`` (indices in lists are skipped)."""
    record: type[BaseModel] = root
    for part in location:
        if isinstance(part, str) and part in record.model_fields:
            found = _record_in(record.model_fields[part].annotation)
            if found is None:
                return []
            record = found
    return list(record.model_fields)


def _record_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _record_in(argument)
        if found is not None:
            return found
    return None
