"""Fewer steps or cheaper steps, in worlds where the answer is known."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest

from autotune.errors import InputError
from autotune.policy import Policy
from autotune.search import question, tune
from autotune.search.answer import Answer, read_answer
from autotune.search.interrupts import Interrupted
from autotune.search.ways import BOTH, CHEAPER, FEWER, WAYS

from .conftest import FakePictures, harm_of_anything_else

BUDGETS = ("3%", "40%")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two budgets, of which one pays for no step of the ten, and few candidates."""
    monkeypatch.setattr(tune, "answer", partial(question.answer, budgets=BUDGETS, trials=1))


@pytest.fixture
def explained(pipe: Any, short: None, pictures: FakePictures, continued: dict[str, Any]) -> Answer:
    """What a finished search finds when it is asked afterwards."""
    found = tune.tune(pipe, "40%", **continued, explain=True).answer
    assert found is not None
    return found


def test_where_only_the_number_of_steps_counts_cheaper_ones_win(explained: Answer, continued: dict[str, Any]) -> None:
    nothing, rung = explained.rungs
    assert nothing.winners == {} and set(nothing.missing) == set(WAYS)
    assert nothing.missing[FEWER] == "the cheapest takes 10 %"
    assert rung.missing == {} and set(rung.winners) == set(WAYS)
    assert rung.winners[FEWER].policy.steps == 4
    assert rung.winners[CHEAPER].policy.steps == 10
    assert rung.winners[BOTH].policy.steps > 10
    assert all(winner.relative <= 0.4 for winner in rung.winners.values())
    assert all(each.sign == -1 for each in rung.differences)
    assert explained.verdict[0] == "Cheaper steps alone beat fewer steps at 40 % of the compute."
    assert read_answer(Path(continued["run_dir"]) / "explain.json") == explained


def test_where_all_but_fewer_steps_do_harm_both_fall_back_on_them(
    pipe: Any, short: None, pictures: FakePictures, arguments: dict[str, Any]
) -> None:
    pictures.harm = harm_of_anything_else
    found = tune.tune(pipe, "40%", **arguments, explain=True).answer
    assert found is not None
    rung = found.rungs[1]
    cheaper, both, _ = rung.differences
    assert cheaper.sign == 1
    assert both.same and both.loss.value == 0 and rung.winners[BOTH].id == rung.winners[FEWER].id == "s4"


def test_interrupted_it_goes_on_to_the_same_answer(
    explained: Answer, pipe: Any, short: None, pictures: FakePictures, arguments: dict[str, Any], tmp_path: Path
) -> None:
    arguments |= {"run_dir": tmp_path / "another"}
    pictures.made.clear()
    tune.tune(pipe, "40%", **arguments)
    search = len(pictures.made)

    def interrupt(count: int, policy: Policy) -> None:
        if count == search + 30:
            raise KeyboardInterrupt

    pictures.before = interrupt
    with pytest.raises(Interrupted):
        tune.tune(pipe, "40%", **arguments, explain=True)
    assert not (tmp_path / "another" / "explain.json").exists()
    pictures.before = lambda count, policy: None
    again = tune.tune(pipe, "40%", **arguments, explain=True).answer
    assert again is not None
    assert again.verdict == explained.verdict
    assert [rung.winners[FEWER].id for rung in again.rungs[1:]] == ["s4"]


def test_asked_again_it_makes_no_pictures_but_the_clocks(
    explained: Answer, pipe: Any, short: None, pictures: FakePictures, continued: dict[str, Any]
) -> None:
    before = optuna.get_all_study_names(f"sqlite:///{continued['run_dir'] / 'study.db'}")
    pictures.made.clear()
    again = tune.tune(pipe, "40%", **continued, explain=True).answer
    assert again == explained
    assert len(pictures.made) == 15
    assert optuna.get_all_study_names(f"sqlite:///{continued['run_dir'] / 'study.db'}") == before
    assert {name.removeprefix("study") for name in before} == {
        "", "-explain-cheaper-steps-40pct", "-explain-fewer-steps-40pct", "-explain-both-40pct",
        *(["-explain-cheaper-steps-3pct"] if CHEAPER in explained.rungs[0].winners else []),
    }  # fmt: skip


@pytest.mark.parametrize("budgets", [("40%ms",), ("40%,1.2s",), ("40%", "40.0%"), ()])
def test_budgets_that_are_no_different_shares_are_refused(budgets: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="share of the full run|given twice|at least one"):
        question._by_share(budgets)
