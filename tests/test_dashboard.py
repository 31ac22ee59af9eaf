"""The dashboard in a real browser: the study and a trial's picture are there to see."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, upload_artifact
from PIL import Image

import autotune
from tests.browser import browser_context

SOURCE = Path(autotune.__file__).parents[1]
STUDY = "emoji-unet-40pct"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run's folder as the search leaves it: study.db and artifacts/, a picture attached to every trial."""
    folder = tmp_path / "runs" / STUDY
    folder.mkdir(parents=True)
    (folder / "artifacts").mkdir()
    store = FileSystemArtifactStore(str(folder / "artifacts"))
    study = optuna.create_study(study_name=STUDY, storage=f"sqlite:///{folder / 'study.db'}")
    for number in range(3):
        trial = study.ask()
        value = float(trial.suggest_int("interval", 1, 4))
        picture = folder / f"{number}.png"
        Image.fromarray(np.full((64, 96, 3), 80 * number, dtype=np.uint8)).save(picture)
        upload_artifact(artifact_store=store, file_path=str(picture), study_or_trial=trial, mimetype="image/png")
        study.tell(trial, value)
    return folder


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The address of ``postdiff dashboard`` on ``folder``, run as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune.cli", "dashboard", str(folder), "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert address is not None, f"no address in {line!r}"
        yield address[0]
    finally:
        process.terminate()
        process.wait(timeout=30)


def test_a_browser_shows_the_study_and_a_trials_picture(run_dir: Path, tmp_path: Path) -> None:
    with serving(run_dir) as address, browser_context(tmp_path / "profile") as context:
        from playwright.sync_api import expect

        page = context.new_page()
        page.goto(f"{address}dashboard")
        expect(page.get_by_text(STUDY).first).to_be_visible(timeout=30_000)

        study = page.get_by_text(STUDY).first
        study.click()
        page.wait_for_url(re.compile(r"/studies/\d+"))
        page.goto(re.sub(r"(/studies/\d+).*", r"\1/trials?numbers=1", page.url))
        picture = page.locator("img[src*='/artifacts/']").first
        expect(picture).to_be_visible(timeout=30_000)
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())
        assert picture.evaluate("image => [image.naturalWidth, image.naturalHeight]") == [96, 64]
