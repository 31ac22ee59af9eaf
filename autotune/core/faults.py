"""Errors that nobody foresaw: where they came up, and their tracebacks, which are for files and not for terminals."""

from __future__ import annotations

import copy
import logging
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_LOG = logging.getLogger(__name__)

_FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"

# What a record for the terminal has lost, for files.
_WHOLE = "postdiff_whole"
# Libraries put tracebacks into messages, too.
_STACK = re.compile(r"\n\s*(Traceback \(most recent call last\)|File \".*\", line \d+)")


class _Phase(str):
    """The note on an error that says where it came up."""


class _Kept(str):
    """The note on an error that says which file has its traceback."""


@contextmanager
def during(phase: str) -> Iterator[None]:
    """Note on an error that leaves the block where it came up, unless a narrower block has done so.

    Args:
        phase: With its preposition: ``in trial 7``, ``while loading the model``.
    """
    try:
        yield
    except Exception as error:
        if phase_of(error) is None:
            error.add_note(_Phase(phase))
        raise


def phase_of(error: BaseException) -> str | None:
    """What the narrowest :func:`during` noted on an error."""
    return next((str(note) for note in getattr(error, "__notes__", ()) if isinstance(note, _Phase)), None)


def kept_in(error: BaseException) -> Path | None:
    """The file that has an error's traceback, once :func:`note_file` has noted it."""
    return next((Path(note) for note in getattr(error, "__notes__", ()) if isinstance(note, _Kept)), None)


def note_file(error: BaseException, path: Path) -> None:
    """Note on an error that the log ``path`` has its traceback."""
    error.add_note(_Kept(path))


def forget_notes(error: BaseException) -> None:
    """Take the notes off an error that has been dealt with: somebody may raise it again."""
    if hasattr(error, "__notes__"):
        error.__notes__ = [note for note in error.__notes__ if not isinstance(note, _Phase | _Kept)]


def out_of_memory(error: BaseException) -> bool:
    """Whether there was not enough memory, on the host or on the device."""
    # torch is not to be loaded for a question. Some of its allocators raise nothing but a RuntimeError.
    named = any(kind.__name__ in ("MemoryError", "OutOfMemoryError") for kind in type(error).__mro__)
    text = str(error) if isinstance(error, RuntimeError) else ""
    return named or "out of memory" in text or "can't allocate memory" in text


def keep_traceback(error: BaseException, path: Path) -> None:
    """Append an error with its traceback to the log ``path``, and note on it that it is there.

    Raises:
        OSError: it cannot be written to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    where = phase_of(error)
    message = "ended by an error" if where is None else f"ended by an error {where}"
    record = logging.LogRecord("autotune", logging.ERROR, __file__, 0, message, (), _info(error))
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(FileFormatter().format(record) + "\n")
    note_file(error, path)


class FileFormatter(logging.Formatter):
    """Of log files: a line with time and process, and everything that :func:`no_tracebacks` spares the terminal."""

    def __init__(self) -> None:
        super().__init__(_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """The record as it was made."""
        whole = getattr(record, _WHOLE, None)
        if whole is not None:
            record = copy.copy(record)
            vars(record).update(whole)
        return super().format(record)


@contextmanager
def no_tracebacks() -> Iterator[None]:
    """Inside the block no traceback reaches the terminal by way of a log, of a thread or of a finalizer.

    Whoever logs, and whichever handler shows it, messages end before their traceback; a :class:`FileFormatter` has it
    all the same. Threads and finalizers log the error they end by.
    """
    make, thread_hook, finalizer_hook = logging.getLogRecordFactory(), threading.excepthook, sys.unraisablehook
    complains = logging.raiseExceptions

    def record(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return _spared(make(*args, **kwargs))

    def thread_ended(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None and not isinstance(ended.exc_value, SystemExit):
            name = "a thread" if ended.thread is None else f"the thread {ended.thread.name!r}"
            _LOG.warning("%s ended by %s", name, ended.exc_type.__name__, exc_info=_info(ended.exc_value))

    def not_raised(ignored: sys.UnraisableHookArgs) -> None:
        if ignored.exc_value is not None:
            _LOG.debug("ignored in %r", ignored.object, exc_info=_info(ignored.exc_value))

    logging.setLogRecordFactory(record)
    # Of messages that do not fit their arguments.
    logging.raiseExceptions = False
    threading.excepthook, sys.unraisablehook = thread_ended, not_raised
    try:
        yield
    finally:
        logging.setLogRecordFactory(make)
        logging.raiseExceptions = complains
        threading.excepthook, sys.unraisablehook = thread_hook, finalizer_hook


def _spared(record: logging.LogRecord) -> logging.LogRecord:
    """The record without tracebacks, which it keeps for files."""
    try:
        message = record.getMessage()
    except (TypeError, ValueError):  # It does not fit its arguments; whoever shows it finds out.
        message = ""
    stack = _STACK.search(message)
    if record.exc_info or record.stack_info or stack:
        whole = {"exc_info": record.exc_info, "stack_info": record.stack_info, "msg": record.msg, "args": record.args}
        vars(record)[_WHOLE] = whole
        record.exc_info = record.stack_info = None
        if stack:
            record.msg, record.args = message[: stack.start()], ()
    return record


def _info(error: BaseException) -> tuple[type[BaseException], BaseException, Any]:
    return type(error), error, error.__traceback__
