"""The cheapest policy above a floor, from a pipeline to an exported policy."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import optuna
import pytest

from autotune.core.errors import InputError
from autotune.core.interrupts import Interrupted
from autotune.core.interval import Interval
from autotune.cost import Pricer, parse_budget
from autotune.options import TuneOptions
from autotune.policy import Policy, read_policy
from autotune.quality.floor import Bounded, Floor
from autotune.report.verdict import verdict
from autotune.results.finalists import read_finalists
from autotune.study.trials import sqlite_url
from autotune.workflows import floor_round, floor_search
from autotune.workflows.tune import TuneResult, tune
from autotune.workflows.tune_floors import tune_floors
from tests.support.fake_search import FakePictures, search_arguments, tiny_pipeline, use_pictures
from tests.support.profiles import synthetic_profile

FLOORS = (0.0, 0.3, 3.0)


def given(folder: Path, **more: Any) -> dict[str, Any]:
    """A search of as few candidates as there are known recipes."""
    return search_arguments(folder) | {"trials": 2} | more


def trials_in(folder: Path) -> dict[str, int]:
    """How many each study of a run has."""
    studies = optuna.get_all_study_summaries(sqlite_url(folder / "study.db"))
    return {study.study_name: study.n_trials for study in studies}


@pytest.fixture(scope="module")
def fake() -> Iterator[FakePictures]:
    """Makes the pictures of this module."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        found = FakePictures()
        use_pictures(found, monkeypatch)
        yield found


@pytest.fixture(scope="module")
def floors(fake: FakePictures, tmp_path_factory: pytest.TempPathFactory) -> dict[float, TuneResult]:
    """Three floors one after the other in one folder. Only to be read."""
    folder = tmp_path_factory.mktemp("floors") / "run"
    return {most: tune(tiny_pipeline(), max_loss=most, **given(folder)) for most in FLOORS}


def test_each_is_certified_and_cheaper_as_the_floor_rises(floors: dict[float, TuneResult]) -> None:
    for most, result in floors.items():
        floor = result.finalists.floor
        assert floor is not None and floor.met and floor.certificate.loss is not None
        assert floor.certificate.loss.high <= most and result.finalists.winner.quality.loss.value <= most
        assert result.policy.quality is not None and result.policy.quality.certificate == floor.certificate
    costs = [result.policy.cost.relative for result in floors.values() if result.policy.cost is not None]
    assert costs == sorted(costs, reverse=True) and costs[0] > costs[-1]


def test_at_most_three_budgets_are_searched_with_the_flops_of_two(
    fake: FakePictures, pipe: Any, tmp_path: Path
) -> None:
    result = tune(pipe, max_loss=0.3, **given(tmp_path / "run", trials=30))
    studies = trials_in(tmp_path / "run")
    assert "study-40pct" in studies and len(studies) <= 3
    assert result.spending.all <= 2 * 30 * 12 * 0.4 * result.finalists.full.cost.flops


def test_another_floor_goes_on_with_what_is_there(
    floors: dict[float, TuneResult], fake: FakePictures, pipe: Any, tmp_path: Path
) -> None:
    shutil.copytree(floors[3.0].run_dir, tmp_path / "run")
    before = trials_in(tmp_path / "run")
    again = tune(pipe, max_loss=3.0, **given(tmp_path / "run"))
    assert trials_in(tmp_path / "run") == before
    assert again.policy.key == floors[3.0].policy.key
    assert read_finalists(tmp_path / "run" / "finalists.json") is not None


def test_where_nothing_within_a_budget_holds_it_the_full_run_is_exported(
    fake: FakePictures, pipe: Any, tmp_path: Path
) -> None:
    result = tune(pipe, "15%", max_loss=0.001, **given(tmp_path / "run"))
    found, floor = result.finalists, result.finalists.floor
    assert floor is not None and not floor.met and not found.succeeded and found.winner == found.full
    assert floor.nearest is not None and floor.nearest.over == ("loss",)
    said = verdict(found)
    assert "Nothing within 15%" in said and "--max-loss cannot hold together with --budget" in said
    exported = read_policy(result.policy_file)
    assert exported.key == found.full.policy.key and exported.budget == "15%"
    assert exported.quality is not None and exported.quality.certificate is not None
    assert exported.quality.certificate.loss is not None and exported.quality.certificate.loss.high == 0


def test_what_is_only_likely_to_hold_a_floor_sends_the_search_to_larger_budgets(
    fake: FakePictures, pipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pricer, seen = Pricer(pipe, full_steps=10), floor_round.bounds

    def expected(self: Any, policy: Policy, trial: Any) -> float:
        return 0.95 if pricer.price(policy).relative <= 0.4 else 1.0

    def unlucky(evaluator: Any, floor: Floor, second: Any, policy: Policy, level: float) -> list[Bounded]:
        """Held-out pictures find more loss than allowed where tuning pictures were not sure."""
        found = seen(evaluator, floor, second, policy, level)
        if pricer.price(policy).relative > 0.4:
            return found
        return [Bounded(each.name, Interval(value=9, low=9, high=9), each.most) for each in found]

    monkeypatch.setattr(floor_search.Prospects, "_expected", expected)
    monkeypatch.setattr(floor_round, "bounds", unlucky)
    result = tune(pipe, max_loss=3.0, **given(tmp_path / "run"))
    assert trials_in(tmp_path / "run").keys() == {"study-40pct", "study-50pct", "study-60pct"}
    floor = result.finalists.floor
    assert floor is not None and floor.met and floor.nearest is not None
    assert result.policy.cost is not None and 0.4 < result.policy.cost.relative <= 0.5


def test_changes_have_a_floor_of_their_own(fake: FakePictures, pipe: Any, tmp_path: Path) -> None:
    result = tune(pipe, max_loss=3.0, max_change=0.02, **given(tmp_path / "run"))
    floor = result.finalists.floor
    assert floor is not None and floor.met
    seen = floor.certificate
    assert seen.change is not None and seen.loss is not None
    assert seen.change.high <= 0.02 and seen.loss.high <= 3.0


def test_on_a_target_time_is_to_be_low(fake: FakePictures, pipe: Any, tmp_path: Path) -> None:
    profile = synthetic_profile(Pricer(pipe))
    result = tune(pipe, "50ms,60%ms", max_loss=0.5, target=profile, **given(tmp_path / "run"))
    floor = result.finalists.floor
    assert floor is not None and floor.sought == "time" and floor.budget == "50ms,60%ms"
    assert result.policy.cost is not None and result.policy.cost.predicted


def test_several_floors_share_their_searches(
    floors: dict[float, TuneResult], fake: FakePictures, pipe: Any, tmp_path: Path
) -> None:
    shutil.copytree(floors[3.0].run_dir, tmp_path / "run")
    options = TuneOptions(**given(tmp_path / "run"))
    both = tune_floors(pipe, (Floor(0.0), Floor(3.0)), None, options)
    assert [result.policy_file.name for result in both] == ["policy-loss-0.json", "policy-loss-3.json"]
    assert both[0].policy.cost is not None and both[1].policy.cost is not None
    assert both[0].policy.cost.relative > both[1].policy.cost.relative
    assert (tmp_path / "run" / "loss-3" / "finalists.json").is_file()


@pytest.mark.parametrize(("module", "function"), [("explore", "explore"), ("floor_round", "judge")])
def test_what_is_interrupted_goes_on(
    module: str,
    function: str,
    floors: dict[float, TuneResult],
    fake: FakePictures,
    pipe: Any,
    tmp_path: Path,
) -> None:
    shutil.copytree(floors[3.0].run_dir, tmp_path / "run")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    place = import_module(f"autotune.workflows.{module}")
    original = getattr(place, function)

    def pressed(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return original(*args, **kwargs)

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(place, function, pressed)
        with pytest.raises(Interrupted, match="repeat the same command"):
            tune(pipe, max_loss=3.0, **given(tmp_path / "run"))
    again = tune(pipe, max_loss=3.0, **given(tmp_path / "run"))
    assert again.policy.key == floors[3.0].policy.key


def test_too_few_prompts_certify_nothing(fake: FakePictures, pipe: Any, tmp_path: Path) -> None:
    held_out = ["twitter apple", "plain dog", "twitter moon"] * 4
    found = tune(pipe, max_loss=3.0, **given(tmp_path / "run", held_out=held_out)).finalists
    assert found.floor is not None and not found.floor.met and "too few to certify anything" in verdict(found)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"max_loss": -0.1}, "max_loss is -0.1; give 0"),
        ({"max_change": float("nan")}, "max_change is nan"),
        ({"max_loss": 0.1, "explain": True}, "explain compares budgets"),
    ],
)
def test_what_no_policy_can_hold_is_refused(more: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        tune(None, **given(tmp_path / "run") | more)
    assert not any(tmp_path.iterdir())


def test_the_same_floor_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the floor loss 0.1 is given twice"):
        tune_floors(None, (Floor(0.1), Floor(0.1)), parse_budget("40%"), TuneOptions(**given(tmp_path / "run")))
