"""Methods of single instances that others stand in for, until that is taken back."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

_NOTHING: Any = object()


class Replacements:
    """Replaced methods, with what the instances themselves had by their names, as other tools leave it."""

    def __init__(self) -> None:
        self._replaced: list[tuple[Any, str, Any]] = []

    def add(self, owner: Any, name: str, method: Callable[..., Any], accepts: Sequence[str] = ()) -> None:
        """Have ``method(original, ...)`` called in place of a method.

        Args:
            owner: the instance.
            name: the method's.
            method: takes the original and then its arguments.
            accepts: arguments by name that the signature gets besides.
        """
        original = getattr(owner, name)
        # update_wrapper, because pipelines ask for the signatures of scheduler methods.
        replacement: Any = functools.update_wrapper(functools.partial(method, original), original)
        if accepts:
            signature = inspect.signature(original)
            more = [
                inspect.Parameter(argument, inspect.Parameter.KEYWORD_ONLY, default=None)
                for argument in accepts
                if argument not in signature.parameters
            ]
            named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
            replacement.__signature__ = signature.replace(parameters=[*named, *more])
        self._replaced.append((owner, name, vars(owner).get(name, _NOTHING)))
        setattr(owner, name, replacement)

    def undo(self) -> None:
        """Take all of them back, the latest first."""
        for owner, name, own in reversed(self._replaced):
            if own is _NOTHING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)
        self._replaced.clear()
