"""Fewer steps or cheaper steps, in worlds where the answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest

from autotune.core.errors import InputError
from autotune.cost import parse_budget
from autotune.options import SetupOptions
from autotune.policy import Policy
from autotune.results.tradeoff import ARMS, BOTH, CHEAPER, FEWER, Tradeoff, read_tradeoff
from autotune.study.trials import sqlite_url
from autotune.workflows import tradeoff
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.progress import Progress
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.setup import Setup, prepare
from autotune.workflows.tune import TuneResult
from search_spaces import space_for
from tests.support.fake_search import FakePictures, degradation_of_anything_else


@pytest.fixture
def narrow(pipe: Any, arguments: dict[str, Any]) -> Setup:
    """Only solver, noise levels and reuse may vary, so that few recipes are left."""
    plain, free = space_for(pipe).recipes[0].values, ("solver", "skew", "depth", "interval")
    fixed = {name: (value, value) for name, value in plain.items() if name not in free}
    given = {name: arguments[name] for name in ("prompts", "held_out", "scorer", "steps", "images", "held_out_images")}
    (setup,) = prepare(pipe, (parse_budget("40%"),), SetupOptions(space=fixed, **given))
    return setup


def ask(setup: Setup, folder: Path) -> Tradeoff:
    with Progress(quiet=True) as progress, quiet_optuna():
        return tradeoff.run_tradeoff_study(
            setup,
            evaluator_for(setup, setup.tuning, "tuning", folder, progress),
            evaluator_for(setup, setup.held_out, "held-out", folder, progress),
            folder,
            name="study",
            url=sqlite_url(folder / "study.db"),
            progress=progress,
            budgets=("5%", "40%"),
            trials=1,
        )


def ids(tradeoff: Tradeoff) -> list[dict[str, str]]:
    return [{arm: winner.id for arm, winner in level.winners.items()} for level in tradeoff.levels]


def test_where_only_the_number_of_steps_counts_cheaper_ones_win(explained: TuneResult) -> None:
    found = explained.tradeoff
    assert found is not None
    nothing, level = found.levels
    assert nothing.missing[FEWER] == "the cheapest takes 10 %" and FEWER not in nothing.winners
    assert level.missing == {} and set(level.winners) == set(ARMS)
    assert level.winners[FEWER].policy.steps == 4
    assert level.winners[CHEAPER].policy.steps == 10
    assert level.winners[BOTH].policy.steps > 10
    assert all(winner.relative <= 0.4 for winner in level.winners.values())
    assert [each.sign for each in level.differences] == [-1, -1, -1]
    assert found.verdict[0] == "Cheaper steps alone beat fewer steps at 40 % of the compute."
    assert read_tradeoff(explained.run_dir / "explain.json") == found


def test_candidates_of_the_tuned_study_take_part_in_both(explained: TuneResult) -> None:
    assert explained.tradeoff is not None
    tuned = min(trial.values[0] for trial in explained.study.get_trials() if trial.values)
    assert explained.tradeoff.levels[1].winners[BOTH].tuning_loss <= tuned


def test_every_search_is_a_study_of_its_own(explained: TuneResult) -> None:
    names = optuna.get_all_study_names(sqlite_url(explained.run_dir / "study.db"))
    expected = {f"study-explain-{arm}-40pct" for arm in ("fewer-steps", "cheaper-steps", "both")} | {"study"}
    assert expected <= set(names)
    assert "study-explain-fewer-steps-5pct" not in names


def test_interrupted_it_goes_on_to_the_same_answer_and_asked_again_it_makes_no_pictures(
    pictures: FakePictures, narrow: Setup, tmp_path: Path
) -> None:
    pictures.degradation = degradation_of_anything_else
    whole = ask(narrow, tmp_path / "whole")
    made = len(pictures.made)

    def interrupt(count: int, policy: Policy) -> None:
        if count == made + made // 2:
            raise KeyboardInterrupt

    pictures.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        ask(narrow, tmp_path / "other")
    pictures.before = lambda count, policy: None
    resumed = ask(narrow, tmp_path / "other")
    assert resumed.verdict == whole.verdict and ids(resumed) == ids(whole)
    assert len(pictures.made) == 2 * made

    # In this world whatever is not fewer steps does degradation, so both fall back on them.
    cheaper, both, _ = whole.levels[1].differences
    assert cheaper.sign == 1
    assert both.same and both.loss.value == 0 and whole.levels[1].winners[BOTH].id == "s4"

    assert ask(narrow, tmp_path / "other") == resumed
    assert len(pictures.made) == 2 * made


@pytest.mark.parametrize("budgets", [("40%ms",), ("40%,1.2s",), ("40%", "40.0%"), ()])
def test_budgets_that_are_no_different_shares_are_refused(budgets: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="share of the full run|given twice|at least one"):
        tradeoff._by_share(budgets)
