"""Which policies a second look takes from a table of methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from autotune.policy import Guidance, Policy
from studies import contenders
from studies.fixed_recipes import TUNED

LINE, TUNED_POLICY = Policy(steps=7, scheduler=None), Policy(steps=6, guidance=Guidance(start_step=1, stop_step=5))


def cell(**low: float) -> dict[str, Any]:
    """A budget's results, and from where the interval of each other method begins."""
    standings = [{"method": TUNED, "document": TUNED_POLICY.to_dict(), "behind": [0.0, 0.0, 0.0]}]
    standings += [
        {"method": name, "document": LINE.to_dict(), "behind": [start + 0.01, start, start + 0.02]}
        for name, start in low.items()
    ]
    return {"budget": "25%", "standings": standings}


def test_who_is_not_behind_beyond_doubt_is_a_contender() -> None:
    found = contenders.contenders(cell(ahead=-0.05, near=-0.001, touching=0.0, behind=0.001))
    assert found == {TUNED: TUNED_POLICY, "ahead": LINE, "near": LINE, "touching": LINE}


def test_a_budget_without_results_is_refused_with_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contenders, "RESULTS", tmp_path)
    (tmp_path / "fixed_recipes-emoji-dit.json").write_text(json.dumps({"cells": [cell()]}))
    with pytest.raises(SystemExit) as stop:
        contenders.main(["emoji-dit", "--budgets", "25%", "55%"])
    assert stop.value.code == 2
    assert "fixed_recipes has no results for 55%; it has 25%" in capsys.readouterr().err


def test_without_results_the_sentence_says_which_command_makes_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(contenders, "RESULTS", tmp_path)
    with pytest.raises(SystemExit) as stop:
        contenders.main(["emoji-dit"])
    assert stop.value.code == 2
    assert "run python -m studies.fixed_recipes emoji-dit first" in capsys.readouterr().err
