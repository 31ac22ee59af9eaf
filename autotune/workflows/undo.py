"""What a refusal promises: nothing stays of what was written before it came to light."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import optuna

from autotune.core.errors import InputError, RunFailed
from autotune.study.storage import open_storage, sqlite_file


class Undo:
    """Takes back what a run has made so far, should it be refused; see :func:`undone_if_refused`."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def folder(self, path: Path) -> None:
        """Make a folder, and what is missing above it. Those that are still empty go with a refusal.

        Raises:
            OSError: it cannot be made.
        """
        missing = [each for each in (path, *path.parents) if not each.exists()]
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            self._stack.callback(_remove_empty, each)
        path.mkdir(exist_ok=True)

    def contents(self, path: Path) -> None:
        """A file or folder that is not there yet goes with a refusal, whatever it holds."""
        if not path.exists():
            self._stack.callback(_remove, path)

    def studies(self, url: str, names: set[str]) -> None:
        """Studies that are about to be made go with a refusal, and so does their SQLite file where it is new."""
        file = sqlite_file(url)
        if file is not None and not file.exists():
            self._stack.callback(_remove, file)
        elif names:
            self._stack.callback(_delete_studies, url, names)

    def forget(self) -> None:
        """Everything made so far stays."""
        self._stack.pop_all()


@contextmanager
def undone_if_refused() -> Iterator[Undo]:
    """Inside the block nothing is final: an InputError that leaves it takes back what the block told :class:`Undo`."""
    with ExitStack() as stack:
        try:
            yield Undo(stack)
        except InputError:
            raise
        except BaseException:
            stack.pop_all()
            raise
        stack.pop_all()


def make_run_folder(folder: Path, undo: Undo) -> None:
    """Make the folder of a run, until it is refused.

    Raises:
        InputError: it cannot be made.
    """
    try:
        undo.folder(folder)
    except OSError as error:
        raise InputError(f"{folder} cannot be made a run directory ({error.strerror}); choose another") from None


@contextmanager
def beyond_refusal() -> Iterator[None]:
    """Inside the block a refusal comes too late to leave nothing behind: what is bad input is a failed run.

    Raises:
        RunFailed: in the place of InputError.
    """
    try:
        yield
    except InputError as error:
        raise RunFailed(str(error)) from error


def _remove_empty(folder: Path) -> None:
    # Whatever somebody else has put there meanwhile is not ours to remove.
    with suppress(OSError):
        folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _delete_studies(url: str, names: set[str]) -> None:
    storage = open_storage(url)
    for study in storage.get_all_studies():
        if study.study_name in names:
            optuna.delete_study(study_name=study.study_name, storage=storage)
