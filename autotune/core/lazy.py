"""Packages whose names come when they are asked for, so that importing one loads nothing heavy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module

from autotune.core.extras import missing_extra


def attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """A package's ``__getattr__``.

    Where the module behind a name needs the tuner and that is not installed, the ``__getattr__`` raises
    :class:`autotune.core.extras.MissingExtra`.

    Args:
        package: Its ``__name__``.
        homes: For every name the module of the package that defines it.
    """

    def find(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{package}.{homes[name]}"), name)
        except ModuleNotFoundError as error:
            refusal = missing_extra(f"{package}.{name}", error)
            if refusal is None:
                raise
            raise refusal from error

    return find
