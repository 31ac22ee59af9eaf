from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from autotune.cost import Cost
from autotune.policy import Policy
from autotune.search.proposer import Proposal
from autotune.search.trial_runner import Report
from autotune.workflows.progress import Progress

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
    assert all("elapsed" in line and "left" in line for line in lines[2:])


def test_a_terminal_shows_a_bar() -> None:
    assert "candidates" in shown(terminal=True)
    assert "\x1b[" in shown(terminal=True)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_what_matters_fits_into_a_row_of_any_terminal(width: int) -> None:
    rows = [line for line in shown(terminal=True, width=width).splitlines() if "candidates" in line]
    plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", row) for row in rows]
    assert plain and all(len(row.split("\r")[-1]) <= width for row in plain)
    assert re.search(r"4/5 +0:\d\d left", plain[-1])
    assert ("best 0.25" in plain[-1]) and (("s8" in plain[-1]) == (width > 60))


def test_long_work_is_heard_of_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("autotune.workflows.progress.time.monotonic", lambda: now[0])
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
