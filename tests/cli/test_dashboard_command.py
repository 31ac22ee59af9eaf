"""The dashboard in a real browser, wide and narrow: note, plots, pictures and why trials failed are there to see."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState, create_trial

import autotune
from autotune.study.notes import OVER_BUDGET
from autotune.workflows.tune import TuneResult
from tests.support.browser import chromium
from tests.support.fake_search import whole

__all__ = ["chromium", "whole"]

SOURCE = Path(autotune.__file__).parents[1]
WIDTHS = [(1280, 900), (390, 844)]


@pytest.fixture(scope="module")
def run_dir(whole: TuneResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, in which one trial broke down, one was over the budget and one cut off."""
    folder = tmp_path_factory.mktemp("dashboard") / "run"
    shutil.copytree(whole.run_dir, folder)
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{folder / 'study.db'}")
    for reason in ("OutOfMemoryError: no memory left", OVER_BUDGET, None):
        given = {} if reason is None else {"failure": reason}
        study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=given))
    return folder


@pytest.fixture(scope="module")
def address(run_dir: Path) -> Iterator[str]:
    """Where ``postdiff dashboard`` serves it, as a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune.cli", "dashboard", str(run_dir), "--port", "0"],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert found is not None, f"no address in {line!r}"
        yield found[0]
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def opened(chromium: Any, width: int, height: int) -> Iterator[tuple[Any, list[str]]]:
    """A page, and what it complains of."""
    with chromium.new_context(viewport={"width": width, "height": height}) as context:
        page = context.new_page()
        complaints: list[str] = []
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        yield page, complaints


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_a_browser_shows_the_study_and_its_trials(
    chromium: Any, address: str, run_dir: Path, width: int, height: int
) -> None:
    with opened(chromium, width, height) as (page, complaints):
        from playwright.sync_api import expect

        expect.set_options(timeout=30_000)
        page.goto(f"{address}dashboard/studies/1")
        for plot in ("frontier", "plan", "cost-by-unit"):
            drawn = page.locator(f"[id='user-defined-plot:postdiff-{plot}'] .main-svg").first
            drawn.scroll_into_view_if_needed()
            expect(drawn).to_be_visible()
            assert drawn.bounding_box()["width"] > 100

        page.goto(f"{address}dashboard/studies/1/note")
        expect(page.get_by_text("What is searched.")).to_be_visible()
        page.goto(f"{address}dashboard/studies/1/trials?numbers=1")
        picture = page.locator("img[src*='/artifacts/']").first
        expect(picture).to_be_visible()
        page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=picture.element_handle())

        # The last three, in their order.
        count = len(optuna.load_study(study_name="study", storage=f"sqlite:///{run_dir / 'study.db'}").trials)
        for number, words in enumerate(("no memory left", "Over the budget", "Cut off"), count - 3):
            page.goto(f"{address}dashboard/studies/1/trials?numbers={number}")
            expect(page.get_by_text(words).first).to_be_visible()
        assert not complaints


def test_the_report_is_beside_it(chromium: Any, address: str) -> None:
    with opened(chromium, 1280, 900) as (page, complaints):
        page.goto(f"{address}report")
        assert page.locator("h1").inner_text()
        assert not complaints
