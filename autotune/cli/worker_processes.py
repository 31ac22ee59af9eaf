"""Worker processes on this machine: how they start, what is said of one that dies, and that none is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from autotune.workflows.helpers import Notice

STARTED_BY = "POSTDIFF_STARTED_BY"
"""In the environment of a worker: the process that it ends with."""

_LOOK_SECONDS = 1.0
_THREADS = "OMP_NUM_THREADS"
# Of its output, what is looked at for the sentence that it ended with.
_TAIL = 4000


def start(
    arguments: Sequence[str], device: str, *, errors: IO[bytes] | None = None, threads: int | None = None
) -> subprocess.Popen[bytes]:
    """Start ``postdiff worker`` on one device.

    It is in a group of its own: a terminal's Ctrl-C reaches this process alone, which passes it on once.

    Args:
        arguments: Of the command, but for ``--device`` and ``--workers``.
        device: As torch names it.
        errors: Takes its standard error; None shares this process's.
        threads: Of torch, unless the environment says how many; None leaves that to torch.
    """
    command = [sys.executable, "-m", "autotune.cli", "worker", "--workers", "1", "--device", device, *arguments]
    environment = {**os.environ, STARTED_BY: str(os.getpid())}
    if threads is not None:
        environment.setdefault(_THREADS, str(threads))
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors, env=environment, start_new_session=True)


def end_with_starter() -> None:
    """Have this process, a worker that another one started, take it for Ctrl-C when that one is gone.

    Without effect in a process that nobody started so.
    """
    if (starter := os.environ.get(STARTED_BY)) is None:
        return
    # What a shell starts in the background ignores Ctrl-C, and so would all that is started from there.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def watch() -> None:
        while os.getppid() == int(starter):
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="looks for who started this", daemon=True).start()


def signal_name(code: int) -> str | None:
    """The name of the signal that ended a process of that exit code, if one did."""
    return signal.Signals(-code).name if code < 0 else None


@dataclass(frozen=True)
class DeviceWorkers:
    """A worker for each of ``devices``, which works on the studies of a run that this process tunes.

    One that dies is reported in a sentence; the search goes on without it, and others retry its trial.
    """

    devices: Sequence[str]
    threads: int | None = None

    @contextmanager
    def __call__(self, url: str, run: str, folder: Path, notice: Notice) -> Iterator[None]:
        """Workers of the run, as long as the block lasts; see :class:`autotune.workflows.helpers.Helpers`."""
        arguments = ["--storage", url, "--study-name", run, "--out", str(folder), "--quiet"]
        workers: list[_Watched] = []
        try:
            for number, device in enumerate(self.devices, 2):
                workers.append(_Watched(number, device, notice, arguments, self.threads))
            yield
        finally:
            for worker in workers:
                worker.end()
            try:
                for worker in workers:
                    worker.join()
            except KeyboardInterrupt:
                for worker in workers:
                    worker.kill()
                raise


@dataclass
class _Watched:
    """A worker process, and a thread that waits for its end."""

    number: int
    device: str
    notice: Notice
    arguments: Sequence[str]
    threads: int | None
    ending: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._errors = TemporaryFile()  # noqa: SIM115 - the thread closes it
        self._process = start(self.arguments, self.device, errors=self._errors, threads=self.threads)
        self._thread = threading.Thread(target=self._wait, name=f"waits for worker {self.number}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ask it to put its trial back and go."""
        self.ending.set()
        if self._process.poll() is None:
            # Before it listens nothing is in its hands, and the signal ends it at once.
            self._process.terminate()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def join(self) -> None:
        """Wait until it is gone."""
        while self._thread.is_alive():
            # A join without an end would not let Ctrl-C through on every system.
            self._thread.join(_LOOK_SECONDS)

    def _wait(self) -> None:
        code = self._process.wait()
        with self._errors as errors:
            if code == 0 or self.ending.is_set():
                return
            who = f"postdiff: worker {self.number} on {self.device}"
            if name := signal_name(code):
                self.notice(f"{who} was ended by {name}; others retry its trial")
                return
            errors.seek(max(errors.seek(0, os.SEEK_END) - _TAIL, 0))
            said = errors.read().decode(errors="replace").strip().splitlines()
            why = said[-1].removeprefix("postdiff: ") if said else f"exit code {code}"
            self.notice(f"{who} ended, and the search goes on without it: {why}")
