"""What a person would try next: guidance from a step earlier or later on, or as far; and stronger."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from autotune.policy import Guidance
from search_spaces import UNetSpace
from search_spaces.schedule import PARTS
from tests.search_spaces.test_unet_space import three_level_unet

SPACE = UNetSpace(three_level_unet(), 64, 64, 20)
UNGUIDED = UNetSpace(three_level_unet(), 64, 64, 20, guided=False)
PLAIN = SPACE.recipes[0].values


def interval(space: UNetSpace, values: dict[str, int], steps: int) -> tuple[int, int]:
    guidance = space.policy(values, steps).guidance
    return (0, steps) if guidance is None else (guidance.start_step, guidance.stop_step)


def quarters(values: Mapping[str, int]) -> int:
    return values["guidance_factor"]


def test_all_that_is_near_the_most_guided_first() -> None:
    values = {**PLAIN, "guidance_start": 6, "guidance_stop": 16, "guidance_factor": 6}
    found = [(interval(SPACE, each, 10), quarters(each)) for each in SPACE.other_intervals(values, 10)]
    assert interval(SPACE, values, 10) == (3, 8)
    assert found == [
        ((3, 9), 6), ((2, 8), 6), ((4, 9), 6), ((2, 7), 6), ((4, 8), 6), ((3, 7), 6),
    ]  # fmt: skip


def test_strength_stays_in_its_range_and_is_the_pipelines_own_in_all_steps() -> None:
    guided = {**PLAIN, "guidance_stop": 10}
    (stronger,) = SPACE.stronger(guided, 10)
    assert stronger == {**guided, "guidance_factor": 5}
    assert list(SPACE.stronger({**guided, "guidance_factor": 8}, 10)) == []
    assert list(SPACE.stronger(PLAIN, 10)) == []
    assert list(UNGUIDED.stronger(UNGUIDED.recipes[0].values, 10)) == []


def test_of_guidance_in_all_steps_only_what_leaves_some_out() -> None:
    found = [interval(SPACE, each, 10) for each in SPACE.other_intervals(PLAIN, 10)]
    assert found == [(1, 10), (0, 9)]


def test_without_guidance_there_is_nothing_to_place() -> None:
    assert list(UNGUIDED.other_intervals(UNGUIDED.recipes[0].values, 10)) == []


def test_narrowed_ranges_hold() -> None:
    space = SPACE.within({"guidance_start": (6, 6), "guidance_stop": (15, 16)})
    values = {**PLAIN, "guidance_start": 6, "guidance_stop": 16}
    found = [each["guidance_stop"] for each in space.other_intervals(values, 20)]
    assert found == [15]


@given(st.integers(0, PARTS // 2), st.integers(1, PARTS), st.integers(2, 40))
def test_each_is_another_policy_whose_ends_moved_by_as_little_as_they_can(start: int, stop: int, steps: int) -> None:
    values = {**PLAIN, "guidance_start": start, "guidance_stop": stop}
    before = interval(SPACE, values, steps)
    # Of more steps than parts some steps are none's end.
    most = -(-steps // PARTS)
    for each in SPACE.other_intervals(values, steps):
        after = interval(SPACE, each, steps)
        assert after != before or before[1] - before[0] == 1
        if before[1] - before[0] > 1:
            assert all(abs(a - b) <= most for a, b in zip(after, before, strict=True))
        changed = SPACE.changed(each).keys() | SPACE.changed(values).keys()
        assert changed <= {"guidance_start", "guidance_stop"}
        assert SPACE.policy(each, steps).guidance != Guidance(start_step=0, stop_step=steps)
