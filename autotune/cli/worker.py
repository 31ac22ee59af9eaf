"""``postdiff worker``: join a search, with one process for every GPU."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch

from autotune.cli.exit_codes import DONE, FAILED
from autotune.cli.faults import one_sentence
from autotune.cli.models import DType, ModelSource
from autotune.cli.worker_processes import end_with_starter, signal_name, start
from autotune.core.errors import InputError
from autotune.core.faults import during
from autotune.core.interrupts import Interrupted
from autotune.workflows import worker
from autotune.workflows.log import worker_log

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class WorkerOptions:
    """The checked options; None leaves a value to the study. ``workers`` of None is one for every GPU."""

    storage: str
    study_name: str
    model: ModelSource | None
    device: str
    workers: int | None
    out: Path
    quiet: bool


def run_worker(options: WorkerOptions) -> int:
    """Work until the study has what was asked for; returns the exit code, of several processes the worst.

    Raises:
        Interrupted: Ctrl-C or SIGTERM while working.
        KeyboardInterrupt: the same before or, with several processes, when all have ended.
    """
    with one_sentence("worker", options.out / worker_log(), resumes=True):
        return _run(options)


def _run(options: WorkerOptions) -> int:
    joined = worker.studies_of(options.storage, options.study_name)
    manifest = joined[0].manifest
    kind = options.device.partition(":")[0]
    if kind not in ("auto", manifest.device):
        raise InputError(
            f"--device {options.device}: the study runs on {manifest.device}, and scores of different kinds of device"
            f" do not mix; give --device {manifest.device}"
        )
    device = manifest.device if options.device == "auto" else options.device
    devices = _devices(device, options.workers)
    if len(devices) > 1:
        return _Crew(options, devices).wait()

    # Those who take machines away ask by SIGTERM first: the trial in hand goes back into the queue, as after Ctrl-C.
    signal.signal(signal.SIGTERM, _as_ctrl_c)
    end_with_starter()
    source = options.model or (None if manifest.model is None else ModelSource.find(manifest.model))
    dtype: DType = manifest.dtype  # type: ignore[assignment]
    try:
        with during("while loading the model"):
            pipe = None if source is None else source.load(devices[0], dtype)
        trials = worker.work(pipe, joined, options.out, quiet=options.quiet)
    except Interrupted as stopped:
        said = "stopped; the trial in hand went back into the queue, repeat the same command to go on"
        raise Interrupted(stopped.run_dir, said) from None
    if not options.quiet:
        print(f"The study {options.study_name} needs no more workers; this one evaluated {trials} candidates.")
    return DONE


def _devices(device: str, workers: int | None) -> list[str]:
    """The device of every process."""
    if device != "cuda":
        return [device] * (workers or 1)
    there = max(torch.cuda.device_count(), 1)
    return [f"cuda:{number % there}" for number in range(workers or there)]


def _as_ctrl_c(number: int, frame: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


class _Crew:
    """Worker processes on this machine. Ctrl-C and SIGTERM end all of them; one that dies leaves the others alone."""

    def __init__(self, options: WorkerOptions, devices: list[str]) -> None:
        self._ending = False
        self._processes: list[subprocess.Popen[bytes]] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._end)
        arguments = ["--out", str(options.out), "--storage", options.storage, "--study-name", options.study_name]
        arguments += ["--model", options.model.name] if options.model else []
        arguments += ["--quiet"] if options.quiet else []
        for device in devices:
            self._processes.append(start(arguments, device))

    def wait(self) -> int:
        """The worst exit code, when all have ended.

        Raises:
            KeyboardInterrupt: they were told to end.
        """
        waiting = dict(enumerate(self._processes, 1))
        while waiting:
            for number, process in list(waiting.items()):
                if process.poll() is not None:
                    del waiting[number]
                    if (name := signal_name(process.returncode)) and not self._ending:
                        print(f"postdiff: worker {number} was ended by {name}; others retry its trial", file=sys.stderr)
            time.sleep(_POLL_SECONDS)
        if self._ending:
            raise KeyboardInterrupt
        return max(FAILED if process.returncode < 0 else process.returncode for process in self._processes)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._ending = True
        for process in self._processes:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
