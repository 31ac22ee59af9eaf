"""Study files: the options of ``postdiff tune`` in TOML, to be kept, shared and repeated.

A key is an option's long name without its dashes in front; a table ``knobs`` is what ``--space`` reads, a table
``tiers`` what ``--tier`` takes::

    model = "stabilityai/stable-diffusion-xl-base-1.0"
    prompts = "my-prompts.txt"
    guidance-scale = 5.0

    [tiers]
    high = "60%"
    draft = "25%"

    [knobs]
    interval = [1, 4]

Paths are relative to the file. What the command line says wins over it. Files that come with the package go by their
names; see :mod:`autotune.cli.packaged_studies`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from typer.exceptions import TyperException

from autotune.cli.packaged_studies import find_study
from autotune.core.errors import InputError, did_you_mean, reason_of
from autotune.quality.prompts import GENERAL
from search_spaces.files import ENGINES, KNOBS, ranges_in

Ranges = Mapping[str, tuple[int, int]]

TIERS = "tiers"

# Neither says anything of a study.
_LEFT_OUT = {"study", "help"}
# Options that take a folder or a name that is none.
_MAY_BE_FOLDERS = {"model", "scorer", "features"}


def take_defaults(context: typer.Context, path: Path | None) -> Path | None:
    """Let a study file say what the command line does not; the callback of an eager option, which gets the file.

    Raises:
        InputError: there is no such study, the file cannot be read, or one of its keys or values is no option's.
    """
    if path is None:
        return None
    path = find_study(path)
    options = {name: parameter for parameter in context.command.params if (name := _long_name(parameter)) is not None}
    document = _read(path)
    ranges = document.pop(KNOBS, None)
    if ranges is not None and "space" in document:
        raise InputError(f"{path}: space and a table [{KNOBS}] say the same thing twice; leave one of them out")
    if TIERS in document:
        if "tier" in document:
            raise InputError(f"{path}: tier and a table [{TIERS}] say the same thing twice; leave one of them out")
        document["tier"] = _tiers(path, document.pop(TIERS))
    defaults: dict[str, Any] = {}
    for key, value in document.items():
        if key not in options:
            raise InputError(
                f"{path}: {key!r} is no option of postdiff tune{did_you_mean(key, [*options, KNOBS, TIERS])}"
            )
        defaults[options[key].name] = _placed(path, key, _checked(context, path, key, value, options[key]))
    context.default_map = defaults
    return path


def knobs_of(path: Path) -> Ranges | None:
    """The ranges in a study file's table ``knobs``, if it has one.

    Raises:
        InputError: the table holds something else.
    """
    document = _read(path)
    return ranges_in(document, path) if KNOBS in document else None


def given_over_file(context: typer.Context, **options: Any) -> list[Any]:
    """Values of options that exclude one another, emptied where the file says one and the command line another.

    Lists and flags are emptied to those of their kind, all others to None.
    """
    from_file = {name: getattr(context.get_parameter_source(name), "name", "") == "DEFAULT_MAP" for name in options}
    mixed = len(set(from_file.values())) > 1

    def emptied(value: Any) -> Any:
        return type(value)() if isinstance(value, list | bool) else None

    return [emptied(value) if mixed and from_file[name] else value for name, value in options.items()]


def _tiers(path: Path, table: Any) -> list[str]:
    """The table as ``--tier`` takes it."""
    if not isinstance(table, dict) or not all(isinstance(budget, str) for budget in table.values()):
        raise InputError(f'{path}: a table [{TIERS}] gives names what they may cost, such as draft = "25%"')
    return [f"{name}={budget}" for name, budget in table.items()]


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"--study {path}: cannot be read ({error.strerror}); give a TOML file") from error
    except ValueError as error:
        raise InputError(f"--study {path}: is not TOML ({reason_of(error)})") from error


def _long_name(parameter: Any) -> str | None:
    name: str = next((option for option in parameter.opts if option.startswith("--")), "--").removeprefix("--")
    return name if name and name not in _LEFT_OUT else None


def _checked(context: typer.Context, path: Path, key: str, value: Any, parameter: Any) -> Any:
    """The value as the command line would have it.

    Shells know texts only. TOML knows more, so that what is neither meant nor harmless is refused before.
    """
    several = [*value] if isinstance(value, list) and parameter.multiple else [value]
    if isinstance(parameter.default, bool) or parameter.secondary_opts:
        wanted, fits, words = "true or false", isinstance(value, bool), value
    else:
        wanted = "a text or a number" + (", or a list of them" if parameter.multiple else "")
        fits = all(isinstance(each, str | int | float) and not isinstance(each, bool) for each in several)
        words = [str(each) for each in several] if parameter.multiple else str(value)
    if not fits:
        raise InputError(f"{path}: {key} is {_shown(value)}; give {wanted}")
    try:
        converted = parameter.process_value(context, words)
    except TyperException as error:
        reason = str(getattr(error, "message", error)).removeprefix("Value error, ").rstrip(".")
        raise InputError(f"{path}: {key} is {_shown(value)}: {reason[:1].lower()}{reason[1:]}") from error
    if isinstance(converted, int | float) and isinstance(value, str):
        raise InputError(f"{path}: {key} is {_shown(value)}; write the number without quotes")
    return converted


def _shown(value: Any) -> str:
    """As TOML writes it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _placed(path: Path, key: str, value: Any) -> Any:
    """Paths relative to the file."""
    beside = path.parent / value if isinstance(value, str | Path) else path
    if isinstance(value, Path):
        return value if str(value) in (GENERAL, *ENGINES) and not beside.exists() else beside
    return str(beside) if key in _MAY_BE_FOLDERS and beside.is_dir() else value
