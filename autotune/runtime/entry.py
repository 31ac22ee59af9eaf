"""Where the calls of one pipeline object begin and end.

Components are shared: ``AutoPipelineForImage2Image.from_pipe(pipe)`` and ``Other(**pipe.components)`` have the denoiser
and the scheduler of ``pipe``. Only its ``__call__`` tells a pipeline's own calls from theirs, and Python looks that up
on the class. So the object, and no other, becomes one of a subclass that goes by its class's name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

Around = Callable[[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], Any]
"""Makes a call in the pipeline's place, given the call and its arguments."""

_ENTRY = "_postdiff_entry"
# What copy.deepcopy looks up, on the object itself too.
_COPY = "__deepcopy__"


class Entry:
    """Has another make the calls and the deep copies of one pipeline, until that is taken back.

    Args:
        pipe: the pipeline.
        call: makes its calls.
        copy: makes its deep copies, given a memo.
    """

    def __init__(self, pipe: Any, call: Around, copy: Callable[[dict[int, Any]], Any]) -> None:
        self.pipe = pipe
        self.call = call
        self._copy = copy
        self._plain: Any = None

    def install(self) -> None:
        self._plain = type(self.pipe)
        self.pipe.__class__ = _watched(self._plain)
        vars(self.pipe).update({_ENTRY: self, _COPY: self._copy})

    def uninstall(self) -> None:
        self.pipe.__class__ = self._plain
        for name in (_ENTRY, _COPY):
            del vars(self.pipe)[name]


@functools.cache
def _watched(plain: Any) -> Any:
    """A subclass whose objects are called through their :class:`Entry`."""

    @functools.wraps(plain.__call__)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        original = functools.partial(plain.__call__, self)
        entry = _entry_of(self)
        return original(*args, **kwargs) if entry is None else entry.call(original, args, kwargs)

    body = {"__call__": call, "__doc__": plain.__doc__, "__module__": plain.__module__}
    return type(plain.__name__, (plain,), body | {"__qualname__": plain.__qualname__})


def _entry_of(pipe: Any) -> Entry | None:
    """None of a shallow copy, which is a pipeline of its own that shares the components."""
    entry: Entry | None = vars(pipe).get(_ENTRY)
    return entry if entry is not None and entry.pipe is pipe else None
