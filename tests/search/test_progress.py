from __future__ import annotations

import io

import pytest
from rich.console import Console

from autotune.cost import Cost
from autotune.policy import Policy
from autotune.search.evaluate import Report
from autotune.search.progress import Progress
from autotune.search.proposals import Proposal

PROPOSAL = Proposal({}, Policy(steps=8), Cost(1, 1, 0.4, None, 0))


def shown(*, terminal: bool = False, quiet: bool = False) -> str:
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=200)
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


@pytest.mark.parametrize("terminal", [False, True])
def test_quiet_shows_nothing(terminal: bool) -> None:
    assert shown(quiet=True, terminal=terminal) == ""
