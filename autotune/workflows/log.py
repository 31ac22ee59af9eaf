"""A log in the run's folder: what the package, Optuna and warnings had to say, and when.

Everything goes on to where it went before as well.
"""

from __future__ import annotations

import logging
import os
import platform
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

import autotune
from autotune.core.errors import InputError, PostDiffError
from autotune.core.faults import FileFormatter, note_file, phase_of
from autotune.cost.profile.environment import versions

_LOG = logging.getLogger(__name__)
_OURS = "autotune"
_LIBRARIES = ("optuna",)


def worker_log() -> str:
    """The file of this worker: machines and processes may share a folder."""
    host = re.sub(r"[^\w.-]+", "-", platform.node()) or "host"
    return f"log-{host}-{os.getpid()}.txt"


@contextmanager
def logged(path: Path) -> Iterator[None]:
    """Append to the log ``path`` until the block ends, how it ends included.

    A refusal leaves no trace: the log is again what it was, or there is none. A disk that does not take the log costs
    the log, not the run.
    """
    before = path.stat().st_size if path.is_file() else None
    try:
        file = _File(path, encoding="utf-8")
    except OSError as error:
        _LOG.warning("no log is kept: %s cannot be written to (%s)", path, error.strerror)
        yield
        return
    file.setFormatter(FileFormatter())
    with _unless_refused(path, before), _collected(file), _warnings_too():
        _LOG.info("postdiff %s, %s", autotune.__version__, ", ".join(f"{k} {v}" for k, v in versions().items()))
        try:
            yield
        except PostDiffError as error:
            _LOG.info("%s", error)
            raise
        except Exception as error:
            # Not above info: whoever called says it, too.
            _LOG.info("ended by an error %s", phase_of(error) or "", exc_info=True)
            if not file.gave_up:
                note_file(error, path)
            raise
        except BaseException as error:
            _LOG.info("ended by %s", type(error).__name__)
            raise
        _LOG.info("done")


@contextmanager
def _unless_refused(path: Path, before: int | None) -> Iterator[None]:
    """Make the log ``path`` as long as it was ``before`` where the block ends by a refusal; None is no log at all."""
    try:
        yield
    except InputError:
        with suppress(OSError):
            path.unlink() if before is None else os.truncate(path, before)
        raise


class _File(logging.FileHandler):
    """Stops at the first line that cannot be written."""

    @property
    def gave_up(self) -> bool:
        return self.level > logging.CRITICAL

    def handleError(self, record: logging.LogRecord) -> None:
        self.setLevel(logging.CRITICAL + 1)
        _LOG.warning("%s is no longer written to", self.baseFilename)

    def close(self) -> None:
        # Of what is buffered; that the log ends early has been said.
        with suppress(OSError):
            super().close()


class _Onward(logging.Handler):
    """Passes on what the logger passed on before it was made to say everything."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__(logger.getEffectiveLevel())
        self._parent = logger.parent or logging.root

    def emit(self, record: logging.LogRecord) -> None:
        self._parent.callHandlers(record)


@contextmanager
def _collected(file: logging.Handler) -> Iterator[None]:
    """Records of this package, down to debug, and of libraries as they say them."""
    ours, onward = logging.getLogger(_OURS), _Onward(logging.getLogger(_OURS))
    before, propagates = ours.level, ours.propagate
    libraries = [logging.getLogger(name) for name in _LIBRARIES]
    for logger in (ours, *libraries):
        logger.addHandler(file)
    ours.addHandler(onward)
    ours.setLevel(logging.DEBUG)
    ours.propagate = False
    try:
        yield
    finally:
        ours.setLevel(before)
        ours.propagate = propagates
        ours.removeHandler(onward)
        for logger in (ours, *libraries):
            logger.removeHandler(file)
        file.close()


@contextmanager
def _warnings_too() -> Iterator[None]:
    show = warnings.showwarning

    def note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        # Not above info: the warning itself is shown as ever.
        _LOG.info("%s:%d: %s: %s", filename, lineno, category.__name__, message)
        show(message, category, filename, lineno, file, line)

    warnings.showwarning = note
    try:
        yield
    finally:
        warnings.showwarning = show
