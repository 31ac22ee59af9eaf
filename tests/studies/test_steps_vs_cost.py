"""The study runs on the shipped model, with as little as it can be run with."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autotune.results.tradeoff import read_tradeoff
from autotune.search.arms import known_recipes
from autotune.workflows import tradeoff
from studies import steps_vs_cost


@pytest.mark.slow
def test_the_study_writes_what_it_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tradeoff, "known_recipes", lambda arm, proposer: known_recipes(arm, proposer)[:2])
    options = "--budget 5% --budget 3% --trials 1 --images 8 --held-out-images 8".split()
    places = ["--out", str(tmp_path / "run"), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["steps_vs_cost", *options, *places])
    steps_vs_cost.main()
    path = tmp_path / "steps_vs_cost-emoji-unet.json"
    found = read_tradeoff(path)
    assert found is not None and found.model == "emoji-unet"
    too_little, enough = found.levels
    # One step of the full run takes 5 %.
    assert too_little.missing["fewer steps"] == "the cheapest takes 5 %"
    assert enough.winners["fewer steps"].policy.steps == 1
    assert enough.winners["cheaper steps"].policy.steps == found.full_steps
    assert all(winner.relative <= 0.05 and winner.candidates > 1 for winner in enough.winners.values())
    assert found.verdict and set(found.verdict) <= set(capsys.readouterr().out.splitlines())
    assert json.loads(path.read_text())["format"] == "postdiff-answer"
    page = (tmp_path / "run" / "steps_vs_cost.html").read_text()
    assert "Fewer steps or cheaper steps?" in page and found.verdict[0] in page
