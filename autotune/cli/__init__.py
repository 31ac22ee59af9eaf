"""The command line: ``postdiff`` and ``postdiff-tune``.

Options are checked before torch is loaded, so that a mistake costs a second and leaves nothing
behind. What the commands return to the shell is in :mod:`autotune.cli.exit_codes`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from autotune.cli.exit_codes import BAD_INPUT, DONE, INTERRUPTED, UNAVAILABLE
from autotune.core.errors import InputError, Unavailable
from autotune.core.interrupts import Interrupted

__all__ = ["BAD_INPUT", "INTERRUPTED", "UNAVAILABLE", "main", "run", "tune_main"]


def main() -> None:
    """Entry point of ``postdiff``."""
    sys.exit(run(sys.argv[1:]))


def tune_main() -> None:
    """Entry point of ``postdiff-tune``, the same as ``postdiff tune``."""
    sys.exit(run(["tune", *sys.argv[1:]]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; what the user got wrong, or stopped, is one sentence on stderr."""
    try:
        return _run(arguments)
    except Interrupted as interrupted:
        _refuse(str(interrupted))
    except KeyboardInterrupt:
        _refuse("interrupted; repeat the same command to go on")
    return INTERRUPTED


def _run(arguments: Sequence[str]) -> int:
    from typer.exceptions import TyperException

    from autotune.cli.app import app

    try:
        code = app(args=list(arguments) or ["--help"], prog_name="postdiff", standalone_mode=False)
    except InputError as error:
        return _refuse(str(error))
    except TyperException as error:
        return _refuse(error.format_message())
    except Unavailable as error:
        _refuse(str(error))
        return UNAVAILABLE
    # What typer makes of Ctrl-C; no command returns it.
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    return int(code or DONE)


def _refuse(message: str) -> int:
    sentence = " ".join(message.split())
    print(f"postdiff: {sentence}", file=sys.stderr)
    return BAD_INPUT
