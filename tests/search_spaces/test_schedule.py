"""When things compute: laws of schedules at any number of steps."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from search_spaces.schedule import MOST_COOL_DOWN, Schedule, cool_down_of

INTERVALS = st.integers(2, 8)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    steps = draw(st.integers(1, 40))
    among = st.integers(1, steps - 1) if steps > 1 else st.nothing()
    return Schedule(
        steps,
        warm_up=draw(st.integers(0, 5)),
        cool_down=draw(st.integers(0, 3)),
        switches=sorted(draw(st.sets(among, max_size=2))) if steps > 1 else (),
        start=draw(st.integers(0, steps - 1)),
        late_interval=draw(st.integers(0, 8)),
        late_start=draw(st.integers(0, steps)),
    )


@given(schedules(), INTERVALS)
def test_all_that_computes_in_full_is_among_the_steps(schedule: Schedule, interval: int) -> None:
    compute = schedule.computing_steps(interval)
    assert list(compute) == sorted(set(compute)) and compute[0] == 0 and compute[-1] < schedule.steps
    assert {*schedule.switches, schedule.start} <= set(compute)
    last = range(max(schedule.steps - schedule.cool_down, 0), schedule.steps)
    assert set(last) <= set(compute)
    first = min(schedule.warm_up, *schedule.switches[:1], schedule.steps)
    assert set(range(first)) <= set(compute)


@given(schedules(), INTERVALS)
def test_nothing_is_reused_for_longer_than_the_interval_in_force(schedule: Schedule, interval: int) -> None:
    compute = schedule.computing_steps(interval)
    for before, after in pairwise((*compute, schedule.steps)):
        last = after - 1
        late = schedule.late_interval and last >= schedule.late_start
        longest = schedule.late_interval if late else interval
        assert last - before < longest


@given(schedules(), INTERVALS)
def test_a_second_window_of_the_same_interval_is_none(schedule: Schedule, interval: int) -> None:
    same, none = (replace(schedule, late_interval=late) for late in (interval, 0))
    assert same.computing_steps(interval) == none.computing_steps(interval)


def test_two_windows() -> None:
    assert Schedule(12, late_interval=4, late_start=6).computing_steps(2) == (0, 2, 4, 8)
    assert Schedule(12, late_interval=2, late_start=6).computing_steps(4) == (0, 4, 6, 8, 10)
    assert Schedule(12, late_interval=1, late_start=9).computing_steps(6) == (0, 6, 9, 10, 11)


def test_intervals_start_again_with_each_size() -> None:
    assert Schedule(12, switches=(4, 7)).computing_steps(3) == (0, 3, 4, 7, 10)


@given(schedules(), INTERVALS, st.integers(1, 5))
def test_rarer_steps_are_some_of_the_steps_and_all_in_full(schedule: Schedule, interval: int, every: int) -> None:
    compute = schedule.computing_steps(interval)
    rarer = schedule.rarer(compute, every)
    assert set(rarer) <= set(compute) and {0, *schedule.switches, schedule.start} <= set(rarer)
    assert schedule.rarer(compute, 1) == compute
    assert cool_down_of(compute, schedule.steps) >= cool_down_of(rarer, schedule.steps)
    if schedule.cool_down:
        assert schedule.steps - 1 in rarer


def test_every_so_many_th_of_the_steps() -> None:
    schedule = Schedule(16, cool_down=1)
    compute = schedule.computing_steps(2)
    assert compute == (0, 2, 4, 6, 8, 10, 12, 14, 15)
    assert schedule.rarer(compute, 3) == (0, 6, 12, 15)


def test_the_end_is_told_by_its_last_steps() -> None:
    assert cool_down_of((0, 2, 4), 6) == set()
    assert cool_down_of((0, 3, 5), 6) == {5}
    assert cool_down_of(range(6), 6) == {3, 4, 5} and MOST_COOL_DOWN == 3
