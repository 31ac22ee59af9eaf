"""Searches in processes of their own, whose pictures are a formula and take as long as one likes."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import autotune.evaluation.judges
from autotune.core.interrupts import Interrupted
from autotune.workflows.setup import Setup
from autotune.workflows.tune import tune
from autotune.workflows.worker import studies_of, work
from tests.support.fake_search import HELD_OUT, PROMPTS, FakePictures, ReadingScorer, of_prompts

STUDY = "study"


def tuner(model: Path, folder: Path, changes: Mapping[str, Any], seconds: float) -> None:
    """``postdiff tune``: every evaluation takes ``seconds``."""
    arguments: dict[str, Any] = {
        "prompts": PROMPTS, "held_out": HELD_OUT, "scorer": "reading", "steps": 10, "images": 12, "held_out_images": 12,
        "timeout": 600.0, "run_dir": folder, "study_name": STUDY, "quiet": True,
    }  # fmt: skip
    _enter(seconds)
    try:
        tune(_pipeline(model), "40%", **arguments | dict(changes))
    except Interrupted:
        raise SystemExit(130) from None


def worker(folder: Path, url: str, seconds: float) -> None:
    """``postdiff worker``, as soon as there is something to join."""
    _enter(seconds)
    joined = studies_of(url, STUDY)
    model = joined[0].manifest.model
    assert model is not None
    work(_pipeline(Path(model)), joined, folder, quiet=True)


def _enter(seconds: float) -> None:
    os.environ["POSTDIFF_HEARTBEAT"] = "1"
    fake = FakePictures(before=lambda count, policy: time.sleep(seconds))
    # For good: the process is made for this alone.
    setattr(Setup, "pictures", lambda setup, *args, **more: of_prompts(fake, *args, **more))  # noqa: B010
    setattr(autotune.evaluation.judges, "Scorer", lambda name, device: ReadingScorer())  # noqa: B010


def _pipeline(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    return pipe
