from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autotune.cost import parse_budget
from autotune.options import SetupOptions
from autotune.search.pruning import usual_share
from autotune.workflows.forecast import Forecast, Pace, forecast, pace_of, pictures_after, shared_seconds, total_seconds
from autotune.workflows.setup import prepare
from tests.support.fake_search import FakePictures, search_arguments


class Machine:
    """A clock that calls move on: so many seconds each, besides those of every step and picture.

    Call number ``delayed`` takes another second, as any may on a busy machine.
    """

    def __init__(self, call: float, step: float, first: float = 0.0, delayed: int | None = None) -> None:
        self.now = 0.0
        self._delayed = delayed
        self.calls: list[tuple[int, int]] = []
        self._call, self._step, self._first = call, step, first

    def __call__(self, pictures: int, steps: int) -> None:
        self.now += self._first * (not self.calls) + pictures * (self._call + steps * self._step)
        self.now += len(self.calls) == self._delayed
        self.calls.append((pictures, steps))

    def pace(self, most: int, steps: int) -> Pace:
        return pace_of(self, most, steps, cheap=10, clock=lambda: self.now)


def test_what_is_cheap_is_measured_whole_and_without_what_only_the_first_call_takes() -> None:
    machine = Machine(call=0.005, step=0.01, first=5)
    pace = machine.pace(16, 20)
    assert machine.calls[-1] == (16, 20)
    assert (pace.pictures, pace.steps) == (16, 20)
    assert pace.seconds == pytest.approx(0.205)


@pytest.mark.parametrize("delayed", range(3, 6))
def test_a_call_that_something_delays_is_timed_again(delayed: int) -> None:
    assert Machine(call=0.005, step=0.01, delayed=delayed).pace(16, 20).seconds == pytest.approx(0.205)


@pytest.mark.parametrize("step", [0.1, 1.0, 20.0])
def test_what_is_dear_is_extrapolated_from_little(step: float) -> None:
    machine = Machine(call=2 * step, step=step)
    pace = machine.pace(16, 50)
    assert pace.steps < 50 and pace.seconds == pytest.approx(52 * step, rel=0.05 if pace.steps > 1 else 2)
    # Two calls that may take ten seconds each, and two of a single step and picture.
    assert machine.now <= 20 + 2 * 3 * step + 1e-6


@pytest.mark.parametrize("step", [0.001, 0.01])
def test_what_no_step_takes_is_told_apart(step: float) -> None:
    pace = Machine(call=4 * step, step=step).pace(16, 20)
    assert (pace.steps < 20) == (step == 0.01)
    assert pace.fixed == pytest.approx(4 * step)
    # Eight of twenty steps take twelve of twenty-four parts.
    assert pace.share(8 / 20) == pytest.approx(0.5)
    assert Pace(1, 20, 1.0).share(0.4) == pytest.approx(0.4)


def test_four_of_five_go_on_at_every_look() -> None:
    assert usual_share(16) == 1
    assert usual_share(32) == pytest.approx((8 * 0.2 + 16 * 0.8 * 0.2 + 32 * 0.8**2) / 32)
    spent = 8 * 0.2 + 16 * 0.8 * 0.2 + 32 * 0.8**2 * 0.2 + 64 * 0.8**3 * 0.2 + 256 * 0.8**4
    assert usual_share(256) == pytest.approx(spent / 256)


def test_a_search_is_foreseen(pipe: Any, pictures: FakePictures, tmp_path: Path) -> None:
    given = search_arguments(tmp_path)
    kept = ("prompts", "held_out", "scorer", "steps", "held_out_images")
    options = SetupOptions(images=64, batch_size=4, **{name: given[name] for name in kept})
    small, large = prepare(pipe, [parse_budget("40%"), parse_budget("80%")], options)
    images, pace = len(small.tuning.rows), Pace(4, 10, 0.5)

    found = forecast(small, pace, trials=1000, timeout=3600)
    assert found.budget == "40%" and [run.name for run in found.runs[:2]] == ["full run", "fewer steps"]
    assert [(run.steps, run.relative) for run in found.runs[:2]] == [(10, 1.0), (4, 0.4)]
    assert all(run.relative <= 0.4 and run.latency_ms is None for run in found.runs[1:])
    assert found.candidate_seconds == pytest.approx(0.4 * 0.5 * images)
    assert found.usual_seconds == pytest.approx(found.candidate_seconds * usual_share(images))
    # The one that begins last may end after the time.
    assert 0 <= found.search_seconds - 3600 < found.usual_seconds
    assert found.fitting * found.usual_seconds == pytest.approx(found.search_seconds)

    fixed = forecast(small, replace(pace, fixed=0.1), trials=1000, timeout=3600)
    assert fixed.candidate_seconds == pytest.approx((0.1 + 0.4 * 0.4) * images)

    assert forecast(small, pace, trials=20, timeout=1e6).fitting == 20
    alone, four = (forecast(small, pace, trials=20, timeout=1e6, workers=workers) for workers in (1, 4))
    assert four.search_seconds == pytest.approx(alone.search_seconds / 4)
    hurried = forecast(small, pace, trials=1000, timeout=1)
    assert hurried.fitting == 1 and hurried.search_seconds == pytest.approx(len(small.recipes) * hurried.usual_seconds)
    dearer = forecast(large, pace, trials=1000, timeout=3600)
    assert dearer.candidate_seconds == pytest.approx(2 * found.candidate_seconds)
    assert dearer.last_round_seconds > found.last_round_seconds

    # What a running search expects of the rest, in its own candidates' pictures.
    held_out = len(small.held_out.rows) * 0.5
    rest = found.last_round_seconds + held_out
    assert pictures_after([small], small) * 0.4 * 0.5 == pytest.approx(rest)
    both = rest + dearer.last_round_seconds
    assert pictures_after([small, large], large) * 0.8 * 0.5 == pytest.approx(both)

    # The full run's own pictures are the reference here, beside those of tuning and held-out prompts.
    shared = shared_seconds(small, pace)
    assert shared == pytest.approx(0.5 * (2 * images + len(small.held_out.rows)))
    assert not pictures.made and not any(tmp_path.iterdir())


def test_a_run_takes_what_its_budgets_take_one_after_the_other_and_what_they_share_once() -> None:
    def searched_for(seconds: float, last_round: float) -> Forecast:
        return Forecast("40%", (), 48, 48, 1.0, 1.0, search_seconds=seconds, last_round_seconds=last_round)

    assert total_seconds([searched_for(100, 20)], 3) == 123
    assert total_seconds([searched_for(100, 20), searched_for(1000, 400)], 3) == 1523
