"""The command line as a reader of declared options: what typer is told of them, and what is made of what it read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from autotune.cli import checks
from autotune.options.declare import Declared, OptionError, declared

Command = Callable[..., int]


def _prompts(path: Path) -> list[str]:
    from autotune.quality import load_prompts

    return load_prompts(path)


def _inputs(path: Path) -> Any:
    from autotune.evaluation.inputs import read_rows

    return read_rows(path)


def _space(path: Path) -> Any:
    from search_spaces import engine_named, read_ranges

    return engine_named(path) or read_ranges(path)


def _target(path: Path) -> Any:
    from autotune.cost import load_profile

    return load_profile(path)


def _memory(text: str) -> int:
    from autotune.cost import parse_bytes

    return parse_bytes(text)


# What reads a value that the shell gives as a text or a path, and refuses it without torch.
_READERS: Mapping[str, Callable[[Any], Any]] = {
    "prompts": _prompts,
    "inputs": _inputs,
    "reference": checks.reference,
    "height": partial(checks.side, "height"),
    "width": partial(checks.side, "width"),
    "timeout": checks.duration,
    "space": _space,
    "target": _target,
    "max_cache_memory": _memory,
    "storage": checks.storage,
    "run_dir": checks.folder_to_write,
}


def reads(declaration: type[Any]) -> Callable[[Command], Command]:
    """Give a command all options of a declaration in place of its parameter ``options``, which gets them checked.

    Raises:
        InputError: when the command runs: an option cannot be used; the sentence spells it as the shell does.
    """
    offered = {each.name: each for each in declared(declaration) if each.flag is not None}

    def decorate(command: Command) -> Command:
        # Those that only this command has say what it is about, so that help has them first.
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in inspect.signature(command, eval_str=True).parameters.values()
            if parameter.name != "options"
        ]
        parameters += map(_parameter, offered.values())

        @functools.wraps(command)
        def run(**values: Any) -> int:
            given = {name: _read(name, values.pop(name)) for name in offered}
            try:
                options = declaration(**given)
            except OptionError as error:
                raise error.spelled({name: each.flag or name for name, each in offered.items()}) from None
            return command(**values, options=options)

        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate


def shell_option(declaration: type[Any], name: str) -> Any:
    """What typer is told of one declared option, for commands that take only some."""
    return _typer_option(next(each for each in declared(declaration) if each.name == name))


def _read(name: str, value: Any) -> Any:
    reader = _READERS.get(name)
    return value if reader is None or value is None else reader(value)


def _parameter(each: Declared) -> inspect.Parameter:
    return inspect.Parameter(
        each.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=each.default,
        annotation=Annotated[each.shell, _typer_option(each)],
    )


def _typer_option(each: Declared) -> Any:
    # Typer offers --no-NAME beside a flag that is not written out.
    written = [each.flag] if each.flag and (each.shell is bool or each.option.flag) else []
    shown: bool | str = each.option.shown or True
    return typer.Option(
        *written,
        help=each.option.help,
        min=each.option.least,
        max=each.option.most,
        metavar=each.option.metavar,
        rich_help_panel=each.option.topic,
        show_default=shown,
    )
