"""The command line: ``postdiff`` and ``postdiff-tune``.

Options are checked before torch is loaded, so that a mistake costs a second and leaves nothing
behind. What the commands return to the shell is in :mod:`autotune.cli.exit_codes`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from autotune.cli.exit_codes import BAD_INPUT, DONE, FAILED, INTERRUPTED, NOBODY_READS
from autotune.core.errors import InputError, PostDiffError, summary_of
from autotune.core.faults import no_tracebacks
from autotune.core.interrupts import Interrupted

__all__ = ["BAD_INPUT", "FAILED", "INTERRUPTED", "NOBODY_READS", "main", "run", "tune_main"]


def main() -> None:
    """Entry point of ``postdiff``."""
    sys.exit(run(sys.argv[1:]))


def tune_main() -> None:
    """Entry point of ``postdiff-tune``, the same as ``postdiff tune``."""
    sys.exit(run(["tune", *sys.argv[1:]]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what the user got wrong, or stopped, is one sentence on stderr."""
    streams = sys.stdout, sys.stderr
    try:
        with no_tracebacks():
            return _run(arguments)
    except Interrupted as interrupted:
        _say(str(interrupted))
    except KeyboardInterrupt:
        _say("interrupted; repeat the same command to go on")
    except Exception as error:  # Of what says what went wrong.
        _say(summary_of(error))
        return FAILED
    finally:
        # Typer puts others in their place when it meets a broken pipe.
        sys.stdout, sys.stderr = streams
    return INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    from typer.exceptions import TyperException

    from autotune.cli.faults import Unread, close_broken_streams, one_sentence

    command = next((argument for argument in arguments if not argument.startswith("-")), " ".join(arguments))
    try:
        with one_sentence(command):
            code = _command(arguments)
            sys.stdout.flush()
    except InputError as error:
        _say(str(error))
        return BAD_INPUT
    except TyperException as error:
        _say(error.format_message())
        return BAD_INPUT
    except Interrupted:
        raise
    except PostDiffError as error:
        _say(str(error))
        return FAILED
    except Unread:
        close_broken_streams()
        return NOBODY_READS
    # What typer makes of Ctrl-C; no command returns it.
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return code


def _command(arguments: Sequence[str]) -> int:
    """Have typer run a command."""
    from autotune.cli.app import app
    from autotune.cli.faults import Unread

    try:
        code = app(args=list(arguments) or ["--help"], prog_name="postdiff", standalone_mode=False)
    except SystemExit as ended:
        # What typer and rich make of a broken pipe.
        if isinstance(ended.__context__, BrokenPipeError):
            raise Unread from ended
        raise
    return int(code or DONE)


def _say(message: str) -> None:
    sentence = " ".join(message.split())
    print(f"postdiff: {sentence}", file=sys.stderr)
