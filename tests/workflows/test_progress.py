from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from autotune.core.interrupts import Interrupted
from autotune.cost import Cost
from autotune.policy import Policy
from autotune.search.loop import OtherReport
from autotune.search.proposer import Proposal
from autotune.search.trial_runner import Report
from autotune.workflows.progress import Progress
from autotune.workflows.tune import tune
from tests.support.fake_search import FakePictures, pictures, pipe, search_arguments

__all__ = ["pictures", "pipe"]

PROPOSAL = Proposal({}, Policy(steps=8), Cost(1, 1, 0.4, None, 0))


def shown(*, terminal: bool = False, quiet: bool = False, width: int = 200) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=width)
    with Progress(quiet=quiet, console=console) as progress:
        progress.stage("full run", 64)
        progress.pictures(16)
        progress.search(total=5, done=1, timeout=60)
        progress.candidate(1, 64)
        progress.report(Report(1, PROPOSAL, 0.25))
        progress.report(Report(2, PROPOSAL, 0.5))
        progress.report(Report(3, PROPOSAL, 0.25, duplicate_of=1))
        progress.report(Report(4, None, None, reason="no memory left"))
    return output.getvalue()


def test_plain_lines_count_keep_the_best_and_leave_out_repetitions() -> None:
    lines = shown().splitlines()
    assert lines[0] == "full run"
    assert lines[1] == "resuming: 1 of 5 candidates are already done"
    assert lines[2].startswith("2/5  loss 0.250  40.0%  s8  best 0.250 at 40.0%, s8")
    assert lines[3].startswith("3/5  loss 0.500") and "best 0.250" in lines[3]
    assert lines[4].startswith("4/5  failed: no memory left")
    assert len(lines) == 5
    assert all(re.search(r"  search 0:00 of \d:\d\d$", line) for line in lines[2:])


def test_trials_of_other_workers_count_and_may_be_the_best() -> None:
    output = io.StringIO()
    with Progress(console=Console(file=output, width=200)) as progress:
        progress.search(total=4, done=0, timeout=60)
        progress.elsewhere(OtherReport(0, "vm:7", 0.5, False, True, 0.4, "s8"))
        progress.elsewhere(OtherReport(1, "vm:7", 0.25, True, True, 0.4, "s9"))
        progress.elsewhere(OtherReport(2, "vm:7", None, False, True, None, None))
        progress.report(Report(3, PROPOSAL, 0.75))
    first, pruned, failed, own = output.getvalue().splitlines()
    assert first.startswith("1/4  loss 0.500 at vm:7  40.0%  s8  best 0.500 at 40.0%, s8")
    assert pruned.startswith("2/4  pruned at vm:7  40.0%  s9  best 0.500")
    assert failed.startswith("3/4  failed at vm:7  best 0.500")
    assert own.startswith("4/4  loss 0.750  40.0%  s8  best 0.500")


def test_notices_are_errors_and_shown_even_when_quiet() -> None:
    output = io.StringIO()
    with Progress(quiet=True, console=Console(file=output, width=200)) as progress:
        progress.stage("full run", 64)
        progress.notice("worker 2 on cuda:1 was ended by SIGKILL")
    assert output.getvalue() == "worker 2 on cuda:1 was ended by SIGKILL\n"


def test_a_terminal_shows_a_bar() -> None:
    assert "candidates" in shown(terminal=True)
    assert "\x1b[" in shown(terminal=True)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_what_matters_fits_into_a_row_of_any_terminal(width: int) -> None:
    rows = [line for line in shown(terminal=True, width=width).splitlines() if "candidates" in line]
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", row) for row in rows]
    assert plain and all(len(row.split("\r")[-1]) <= width for row in plain)
    assert re.search(r"4/5 +best 0.250 at 40", plain[-1]) and (("s8" in plain[-1]) == (width > 60))


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock, in seconds, to be set forward."""
    now = [0.0]
    monkeypatch.setattr("autotune.workflows.progress.time.monotonic", lambda: now[0])
    return now


def test_the_phases_ahead_are_shown_with_what_they_take(now: list[float]) -> None:
    output = io.StringIO()
    with Progress(console=Console(file=output, width=200)) as progress:
        progress.phase("full run", "what it finished is", then="the search, at most 4:00, and the last round")
        now[0] = 20
        assert progress.phases() == "full run 0:20, then the search, at most 4:00, and the last round"
        progress.then("the last round", pictures=90)
        progress.search(total=48, done=0, timeout=240)
        # Nobody knows yet how long a picture takes.
        assert progress.phases() == "search 0:00 of 4:00, then the last round"
        now[0] = 150
        for number in range(10):
            progress.report(Report(number, PROPOSAL, 0.25, pictures=13))
        assert progress.phases() == "search 2:10 of 4:00, then the last round, about 1:30"
        now[0] = 260
        progress.phase("last round", "all candidates and what it finished are")
        now[0] = 300
        assert progress.phases() == "last round 0:40 of about 1:30"
        now[0] = 400
        assert progress.phases() == "last round 2:20"
    lines = output.getvalue().splitlines()
    assert lines[0] == "full run, then the search, at most 4:00, and the last round"
    assert lines[-2].endswith("  search 2:10 of 4:00, then the last round, about 1:30")
    assert lines[-1] == "last round, about 1:30"


def test_further_searches_take_their_time_too(now: list[float]) -> None:
    progress = Progress(quiet=True)
    progress.then("2 more searches and the last rounds", pictures=10, searches=2)
    progress.search(total=10, done=0, timeout=240)
    assert progress.phases() == "search 0:00 of 4:00, then 2 more searches and the last rounds"
    now[0] = 60
    progress.report(Report(0, PROPOSAL, 0.25, pictures=20))
    assert progress.phases() == "search 1:00 of 4:00, then 2 more searches and the last rounds, about 8:30"
    for number in range(1, 5):
        progress.report(Report(number, PROPOSAL, 0.25, pictures=20))
    # They take as long as this one is going to, not all that they may.
    assert progress.phases() == "search 1:00 of 2:00, then 2 more searches and the last rounds, about 4:06"


def test_searches_without_an_end_are_not_forecast(now: list[float]) -> None:
    progress = Progress(quiet=True)
    progress.then("1 more search and the last rounds", pictures=10, searches=1)
    progress.search(total=10, done=0, timeout=float("inf"))
    now[0] = 60
    progress.report(Report(0, None, None, pictures=20, duplicate_of=1))
    assert progress.phases() == "search 1:00, then 1 more search and the last rounds"


def test_an_interrupt_says_what_is_kept_in_every_phase() -> None:
    progress = Progress(quiet=True)
    assert progress.interrupted("runs/a") is None
    said = []
    progress.phase("full run", "what it finished is")
    said.append(progress.interrupted("runs/a"))
    progress.search(total=48, done=11, timeout=240)
    progress.report(Report(12, PROPOSAL, 0.25))
    said.append(progress.interrupted("runs/a"))
    progress.phase("last round", "all candidates and what it finished are")
    said.append(progress.interrupted("runs/a"))
    assert said == [
        f"interrupted in the {what} in runs/a, repeat the same command to go on"
        for what in (
            "full run; what it finished is",
            "search; 12 of 48 candidates are",
            "last round; all candidates and what it finished are",
        )
    ]


@pytest.mark.parametrize("width", [60, 80])
def test_a_terminal_shows_the_phases_above_the_bar(width: int, now: list[float]) -> None:
    output = io.StringIO()
    with Progress(console=Console(file=output, force_terminal=True, width=width)) as progress:
        progress.then("the last round", pictures=900)
        progress.search(total=5, done=0, timeout=240)
        now[0] = 0.1
        progress.report(Report(1, PROPOSAL, 0.25, pictures=1))
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.getvalue())
    assert re.search(r"search 0:00 of \d:\d\d, then the last round, about 1:30", plain)


def test_long_work_is_heard_of_without_a_terminal(now: list[float]) -> None:
    output = io.StringIO()
    with Progress(console=Console(file=output, width=200)) as progress:
        progress.search(total=5, done=0, timeout=9000)
        progress.candidate(3, 256)
        for made in range(16, 257, 16):
            now[0] += 10
            progress.pictures(made)
    # Every minute, not every batch.
    assert output.getvalue().splitlines() == ["trial 3: 96 of 256 pictures", "trial 3: 192 of 256 pictures"]


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_shows_nothing(terminal: bool) -> None:
    assert shown(quiet=True, terminal=terminal) == ""


def test_a_run_names_its_phases_and_those_ahead(
    pipe: Any, pictures: FakePictures, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(pipe, "40%", **search_arguments(tmp_path / "run") | {"quiet": False})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "full run, then the search, at most 4:00, and the last round"
    trials = [line for line in lines if re.match(r"\d+/\d+ ", line)]
    assert len(trials) >= 12
    assert all(
        re.search(r" search 0:\d\d of \d:\d\d, then the last round, about 0:\d\d$", line) for line in trials[:-1]
    )
    assert any(re.match(r"last round, about 0:\d\d$", line) for line in lines)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        ("full run", "what it finished is"),
        ("search", r"\d+ of \d+ candidates are"),
        ("last round", "all candidates and what it finished are"),
    ],
)
def test_an_interrupted_run_says_what_is_kept(
    where: str, kept: str, pipe: Any, pictures: FakePictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(self: Progress, *what: Any) -> None:
        if self.phases().startswith(where):
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "candidate", press)
    monkeypatch.setattr(Progress, "stage", press)
    with pytest.raises(
        Interrupted, match=f"interrupted in the {where}; {kept} in .*, repeat the same command to go on"
    ):
        tune(pipe, "40%", **search_arguments(tmp_path / "run"))


def test_a_search_without_an_end_is_shown_too(pipe: Any, pictures: FakePictures, tmp_path: Path) -> None:
    given = search_arguments(tmp_path / "run") | {"trials": 1, "timeout": float("inf"), "quiet": False}
    assert tune(pipe, "40%", **given).policy.steps > 0
