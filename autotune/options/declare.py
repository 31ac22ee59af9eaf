"""How an option is declared, and what its readers ask of a declaration."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar, get_type_hints

from autotune.core.errors import InputError

T = TypeVar("T")

_METADATA = "option"
_NAME = re.compile(r"<(\w+)>")


class _Annotated:
    """Stands for the type that a field is annotated with."""


class Topic(StrEnum):
    """What options are about, in the order in which help lists them; ``{command}`` is the verb of the command."""

    FIRST = "Most used"
    SUBJECT = "What to {command}"
    BUDGET = "Budget"
    JUDGES = "Judges"
    SEARCH = "Search"
    PLACE = "Where it runs"
    OUTPUT = "Output"


@dataclass(frozen=True)
class Option:
    """What is said of an option besides its name, type and default.

    Attributes:
        help: A sentence for people.
        topic: Where help lists it.
        flag: What the command line and study files call it, where that is not its name in Python.
        shell: The type that they read; None where only Python offers it.
        written: The default as they write it, where that is not its value.
        shown: What they say the default is, where a value does not say it.
        least: The smallest number that they take.
        most: The largest.
        metavar: What help writes for its value, where the type does not say it.
    """

    help: str
    topic: Topic
    flag: str | None = None
    shell: Any = _Annotated
    written: str | None = None
    shown: str | None = None
    least: float | None = None
    most: float | None = None
    metavar: str | None = None


@dataclass(frozen=True)
class Declared:
    """An option of a declaration.

    Attributes:
        name: In Python.
        flag: On the command line, with its dashes; None where it is not offered there.
        shell: The type that the command line reads.
        default: As the command line writes it.
        option: What else is said of it.
    """

    name: str
    flag: str | None
    shell: Any
    default: Any
    option: Option


class OptionError(InputError):
    """Options that cannot be used. The sentence names them as ``<name>``, and each reader spells them in its way."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence
        super().__init__(_NAME.sub(r"\1", sentence))

    def spelled(self, flags: dict[str, str]) -> InputError:
        """The same with other names, by those in Python."""
        return InputError(_NAME.sub(lambda found: flags.get(found[1], found[1]), self.sentence))


def option(
    default: T,
    help: str,
    *,
    topic: Topic,
    flag: str | None = None,
    shell: Any = _Annotated,
    written: str | None = None,
    shown: str | None = None,
    least: float | None = None,
    most: float | None = None,
    metavar: str | None = None,
) -> T:
    """A field of a frozen dataclass that is an option; see :class:`Option` for the arguments.

    Example:
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Options:
        ...     trials: int = option(48, "Candidates to evaluate.", topic=Topic.SEARCH, least=1)
        >>> Options().trials
        48
    """
    metadata = {_METADATA: Option(help, topic, flag, shell, written, shown, least, most, metavar)}
    return field(default=default, metadata=metadata)


def declared(declaration: type[Any]) -> Iterator[Declared]:
    """The options that a dataclass declares, in their order."""
    types = get_type_hints(declaration)
    for each in fields(declaration):
        said: Option = each.metadata[_METADATA]
        assert each.default is not MISSING, "every option has a default"
        yield Declared(
            name=each.name,
            flag=None if said.shell is None else said.flag or f"--{each.name.replace('_', '-')}",
            shell=types[each.name] if said.shell is _Annotated else said.shell,
            default=each.default if said.written is None else said.written,
            option=said,
        )


def with_keywords(function: Callable[..., T], declaration: type[Any]) -> Callable[..., T]:
    """``function`` called with the options of a declaration as keywords, which it gets as its argument ``options``.

    Its signature and its docstring name them all.
    """
    own = [each for each in inspect.signature(function).parameters.values() if each.name != "options"]
    names = {each.name for each in fields(declaration)}
    signature = inspect.Signature([*own, *inspect.signature(declaration).parameters.values()])

    @functools.wraps(function)
    def call(*values: Any, **keywords: Any) -> T:
        given = signature.bind(*values, **keywords).arguments
        options = declaration(**{name: value for name, value in given.items() if name in names})
        return function(**{name: value for name, value in given.items() if name not in names}, options=options)

    call.__signature__ = signature  # type: ignore[attr-defined]
    lines = [f"    {each.name}: {each.option.help}{_default(each)}" for each in declared(declaration)]
    call.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Keywords:", *lines])
    return call


def _default(option: Declared) -> str:
    default = option.option.shown or (None if option.default is None else str(option.default))
    return "" if default is None else f" By default {default}."
