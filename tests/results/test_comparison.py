from __future__ import annotations

import pytest

from autotune.policy import Interval
from autotune.results.comparison import pair, same_pair


@pytest.mark.parametrize(
    ("low", "value", "high", "better", "sentence"),
    [
        (-0.3, -0.2, -0.1, "a", "a is better than b: its loss differs by -0.200 (95 % interval -0.300 to -0.100)."),
        (0.1, 0.2, 0.4, "b", "b is better than a: its loss differs by -0.200 (95 % interval -0.400 to -0.100)."),
        (
            -0.3, -0.2, 0.0, None,
            "a and b cannot be told apart: their losses differ by -0.200 (95 % interval -0.300 to +0.000).",
        ),
        (
            0.0, 0.0, 0.0, None,
            "a and b cannot be told apart: their losses differ by +0.000 (95 % interval +0.000 to +0.000).",
        ),
    ],
)  # fmt: skip
def test_one_is_better_only_where_the_whole_interval_says_so(
    low: float, value: float, high: float, better: str | None, sentence: str
) -> None:
    found = pair("a", "b", Interval(value=value, low=low, high=high))
    assert found.better == better
    assert found.sentence == sentence
    assert found.to_dict() == {
        "a": "a", "b": "b", "difference": {"value": value, "low": low, "high": high}, "better": better,
        "same": False, "sentence": sentence,
    }  # fmt: skip


def test_few_inputs_tell_no_two_apart() -> None:
    found = pair("a", "b", Interval(value=-0.2, low=-0.3, high=-0.1), needed=32)
    assert found.better is None and "32 would be needed" in found.sentence and "-0.200" in found.sentence


def test_the_same_policy_is_not_compared_with_itself() -> None:
    found = same_pair("a", "b")
    assert (found.same, found.better, found.difference.value) == (True, None, 0)
    assert found.sentence == "a and b cannot be told apart: they run the same."
