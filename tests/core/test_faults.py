"""Errors that nobody foresaw: where they came up, and that no traceback reaches the terminal by any other way."""

from __future__ import annotations

import gc
import logging
import sys
import threading
from pathlib import Path

import pytest
import torch

from autotune.core.errors import InputError, reason_of, summary_of
from autotune.core.faults import (
    FileFormatter,
    during,
    forget_notes,
    keep_traceback,
    kept_in,
    no_tracebacks,
    out_of_memory,
    phase_of,
)

OURS = logging.getLogger("somebody.else")


def test_the_narrowest_phase_is_noted() -> None:
    with pytest.raises(KeyError) as raised, during("in the search"), during("in trial 7"):
        raise KeyError("a")
    assert phase_of(raised.value) == "in trial 7"
    assert phase_of(KeyError("a")) is None
    raised.value.add_note("by somebody else")
    assert phase_of(raised.value) == "in trial 7" and kept_in(raised.value) is None


class Broken(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "summary", "reason"),
    [
        (RuntimeError("a  b\tc\nsecond"), "RuntimeError: a b c", "a b c"),
        (RuntimeError("\n\n  first.\n"), "RuntimeError: first", "first"),
        (AssertionError(), "AssertionError", "AssertionError"),
        (KeyError("key"), "KeyError: 'key'", "'key'"),
        (Broken(), "Broken", "Broken"),
        (ValueError("x" * 500), f"ValueError: {'x' * 157}...", f"{'x' * 157}..."),
    ],
)
def test_one_line_of_any_message(error: Exception, summary: str, reason: str) -> None:
    assert (summary_of(error), reason_of(error)) == (summary, reason)


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("no kernel"), False),
        (InputError("the file is out of memory lane"), False),
    ],
)
def test_memory(error: Exception, is_it: bool) -> None:
    assert out_of_memory(error) is is_it


def test_a_traceback_is_kept_with_its_phase_and_the_file_noted(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.txt"
    try:
        with during("in trial 7"):
            raise KeyError("a \ud800")
    except KeyError as error:
        keep_traceback(error, path)
        assert kept_in(error) == path
        error.add_note("by somebody else")
        forget_notes(error)
        assert (kept_in(error), phase_of(error), error.__notes__) == (None, None, ["by somebody else"])
    text = path.read_text()
    assert "ended by an error in trial 7\nTraceback (most recent call last):" in text and "KeyError: 'a" in text


def boom() -> None:
    raise RuntimeError("boom")


def log_exception() -> None:
    try:
        boom()
    except RuntimeError:
        OURS.exception("it is over")


def log_text() -> None:
    OURS.error("Exception: %s", 'boom\n  File "x.py", line 3, in boom\n    raise RuntimeError')


def log_stack() -> None:
    OURS.error("here", stack_info=True)


def log_what_does_not_fit() -> None:
    OURS.error("%d %d", "one")


def end_a_thread() -> None:
    thread = threading.Thread(target=boom, name="beats")
    thread.start()
    thread.join()


def fail_in_a_finalizer() -> None:
    class Doomed:
        def __del__(self) -> None:
            boom()

    Doomed()
    gc.collect()


@pytest.mark.parametrize(
    ("act", "shown", "kept"),
    [
        (log_exception, "it is over\n", "RuntimeError: boom"),
        (log_text, "Exception: boom\n", "raise RuntimeError"),
        (log_stack, "here\n", "Stack (most recent call last)"),
        (log_what_does_not_fit, "", None),
        (end_a_thread, "the thread 'beats' ended by RuntimeError\n", "RuntimeError: boom"),
        (fail_in_a_finalizer, "", "RuntimeError: boom"),
    ],
)
def test_no_traceback_reaches_the_terminal(
    act: object, shown: str, kept: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, terminal = logging.FileHandler(tmp_path / "log.txt"), logging.StreamHandler(sys.stderr)
    file.setFormatter(FileFormatter())
    terminal.setLevel(logging.WARNING)
    loggers = [OURS, logging.getLogger("autotune")]
    hooks = threading.excepthook, sys.unraisablehook, logging.getLogRecordFactory(), logging.raiseExceptions
    for logger in loggers:
        logger.propagate = False
        logger.setLevel(logging.DEBUG)
        logger.addHandler(file)
        logger.addHandler(terminal)
    try:
        with no_tracebacks():
            assert callable(act)
            act()
    finally:
        for logger in loggers:
            logger.propagate = True
            logger.setLevel(logging.NOTSET)
            logger.removeHandler(file)
            logger.removeHandler(terminal)
    assert capsys.readouterr().err == shown
    assert kept is None or kept in (tmp_path / "log.txt").read_text()
    assert hooks == (threading.excepthook, sys.unraisablehook, logging.getLogRecordFactory(), logging.raiseExceptions)
