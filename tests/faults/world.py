"""Searches in processes of their own, whose pictures are a formula and take as long as one likes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import autotune.evaluation.judges
from autotune.cli import run
from autotune.core.interrupts import Interrupted
from autotune.policy import Policy
from autotune.workflows.setup import Setup
from autotune.workflows.tune import tune
from autotune.workflows.worker import studies_of, work
from tests.support.fake_search import HELD_OUT, PROMPTS, FakePictures, ReadingScorer, of_prompts

STUDY = "study"


def tuner(
    model: Path,
    folder: Path,
    changes: Mapping[str, Any],
    seconds: float,
    joined: Path | None = None,
    heartbeat: float = 1,
) -> None:
    """``postdiff tune``: every evaluation takes ``seconds``, and candidates wait until ``joined`` is there.

    Who shows no sign of life for some times ``heartbeat`` seconds is taken for dead.
    """
    arguments: dict[str, Any] = {
        "prompts": PROMPTS, "held_out": HELD_OUT, "scorer": "reading", "steps": 10, "images": 12, "held_out_images": 12,
        "timeout": 600.0, "run_dir": folder, "study_name": STUDY, "quiet": True,
    }  # fmt: skip
    _pretend(_waiting(seconds, joined), heartbeat)
    try:
        tune(_pipeline(model), "40%", **arguments | dict(changes))
    except Interrupted:
        raise SystemExit(130) from None


def worker(folder: Path, url: str, seconds: float, joined: Path | None = None, heartbeat: float = 1) -> None:
    """``postdiff worker``, as soon as there is something to join; it makes ``joined`` with its first picture."""
    _pretend(_telling(seconds, joined), heartbeat)
    studies = studies_of(url, STUDY)
    model = studies[0].manifest.model
    assert model is not None
    work(_pipeline(Path(model)), studies, folder, quiet=True)


def command(arguments: Sequence[str], folder: Path, seconds: float, joined: Path, path: str) -> None:
    """A command of ``postdiff`` in ``folder``, whose output goes to files there.

    Candidates wait until a worker that it starts has joined: one that enters this world by :func:`joining`, since
    ``path`` is where Python looks for modules there.
    """
    os.environ |= {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    os.chdir(folder)
    for stream, name in ((sys.stdout, "output"), (sys.stderr, "errors")):
        with (folder / name).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    # A shell that runs the tests in the background makes its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _pretend(_waiting(seconds, joined))
    code = run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def joining(seconds: float, joined: Path) -> None:
    """What a worker process, which others start, runs before anything else: it tells that it is there."""
    _pretend(_telling(seconds, joined))


def _waiting(seconds: float, joined: Path | None) -> Callable[[int, Policy], None]:
    def before(count: int, policy: Policy) -> None:
        while joined is not None and policy.id != "s10" and not joined.exists():
            time.sleep(0.05)
        time.sleep(seconds)

    return before


def _telling(seconds: float, joined: Path | None) -> Callable[[int, Policy], None]:
    def before(count: int, policy: Policy) -> None:
        if joined is not None:
            joined.touch()
        time.sleep(seconds)

    return before


def _pretend(before: Callable[[int, Policy], None], heartbeat: float = 1) -> None:
    os.environ["POSTDIFF_HEARTBEAT"] = f"{heartbeat:g}"
    fake = FakePictures(before=before)
    # For good: the process is made for this alone.
    setattr(Setup, "pictures", lambda setup, *args, **more: of_prompts(fake, *args, **more))  # noqa: B010
    setattr(autotune.evaluation.judges, "Scorer", lambda name, device: ReadingScorer())  # noqa: B010


def _pipeline(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe
