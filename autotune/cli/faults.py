"""What a user is told of an error that nobody foresaw: one sentence, and which file has the traceback."""

from __future__ import annotations

import datetime
import os
import select
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from typer import Exit
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from autotune.core.errors import PostDiffError, RunFailed, Unavailable, out_of_space, reason_of, summary_of
from autotune.core.faults import forget_notes, keep_traceback, kept_in, out_of_memory, phase_of

_KEPT = 20

# What takes less memory, by command.
_LESS_MEMORY = {
    "tune": "give a smaller --batch-size and another --out, for scores of other batches do not compare",
    "worker": "begin another search with a smaller --batch-size",
    "compare": "give a smaller --batch-size",
    "profile": "give a smaller --batch",
    "generate": "ask for fewer pictures at once",
}


class Unread(Exception):
    """Who read standard output or error is gone."""


class Helped:
    """A command of typer's with a page of its own for ``--help``."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the page."""
        from autotune.cli.help import print_help

        print_help(self, ctx)


class Command(Helped, TyperCommand):
    """One of typer's commands."""


class Commands(Helped, TyperGroup):
    """Typer's commands, whose errors are ours before typer takes those of two classes for its own."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was given."""
        try:
            return super().invoke(ctx)
        except Exception:
            with one_sentence(ctx.invoked_subcommand or ""):
                raise


@contextmanager
def one_sentence(command: str, log: Path | None = None, *, resumes: bool = False) -> Iterator[None]:
    """Say of an error that leaves the block, foreseen by nobody, what failed and where, and keep its traceback.

    Args:
        command: The command that runs, for a phase where none is known and for what takes less memory.
        log: A run's log, which gets the traceback unless it has it. None keeps the traceback in a file of its own in
            the user's cache folder.
        resumes: Whether the same command goes on where it broke off.

    Raises:
        RunFailed: The sentence.
        Unavailable: The same where a disk is full.
        Unread: Nobody reads what is written any more.
    """
    try:
        yield
    except (PostDiffError, TyperException, Exit, Unread):
        raise
    except Exception as error:
        if isinstance(error, BrokenPipeError) and any(map(_has_no_reader, (sys.stdout, sys.stderr))):
            raise Unread from error
        again = ", repeat the same command to go on" if resumes else ""
        if out_of_space(error):
            raise Unavailable(f"a file cannot be written ({reason_of(error)}); make room{again}") from error
        where = phase_of(error) or f"in postdiff {command}"
        said = f"{_what(error, where, command)}; {_where_kept(error, log)}{again}"
        forget_notes(error)
        raise RunFailed(said) from error


def close_broken_streams() -> bool:
    """Whether nobody reads standard output or error any more. What is still written there goes nowhere."""
    broken = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
    for stream in broken:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    return bool(broken)


def _what(error: Exception, where: str, command: str) -> str:
    if not out_of_memory(error):
        name, _, reason = summary_of(error).partition(": ")
        return f"{name} {where}: {reason}" if reason else f"{name} {where}"
    remedy = _LESS_MEMORY.get(command, "end what else takes memory here")
    return f"out of memory {where} ({reason_of(error)}); {remedy}"


def _where_kept(error: Exception, log: Path | None) -> str:
    """Keep the traceback where that is possible: in the run's log, the cache folder or the one for temporary files."""
    from autotune.core.cache_folder import cache_folder

    path = kept_in(error)
    if path is not None:
        return f"its traceback is in {path}"
    name = f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}-{os.getpid()}.txt"
    folders = (cache_folder() / "errors", Path(tempfile.gettempdir()) / "postdiff-errors")
    trouble: OSError | None = None
    for path in filter(None, (log, *(folder / name for folder in folders))):
        try:
            keep_traceback(error, path)
        except OSError as problem:
            trouble = problem
            continue
        if path is not log:
            _remove_oldest(path.parent)
        return f"its traceback is in {path}"
    return f"its traceback cannot be kept ({reason_of(trouble or error)})"


def _remove_oldest(folder: Path) -> None:
    for file in sorted(folder.glob("*.txt"))[:-_KEPT]:
        file.unlink(missing_ok=True)


def _has_no_reader(stream: TextIO) -> bool:
    try:
        watched = select.poll()
        watched.register(stream.fileno(), 0)
        return any(event & select.POLLERR for _, event in watched.poll(0))
    except (AttributeError, OSError, ValueError):  # No poll on this system, or a stream that is no file.
        return False
