from __future__ import annotations

import io

import pytest
from rich.console import Console

from autotune.policy import ContenderQuality, Interval
from autotune.report import Row, results_table, verdict

QUALITY = ContenderQuality(
    loss=Interval(value=0.051, low=-0.012, high=0.113),
    distance=Interval(value=0.188, low=0.154, high=0.228),
    alignment=Interval(value=0.469, low=0.421, high=0.516),
    fidelity=Interval(value=0.07, low=0.05, high=0.09),
)


def test_every_number_and_its_interval_is_shown_in_eighty_columns() -> None:
    rows = [Row("full run", 20, 1.0, 1.0, QUALITY), Row("[bold]policy", 13, 0.3956, None, QUALITY)]
    shown = io.StringIO()
    Console(file=shown, width=80).print(results_table(rows, prompts=64, images=128))

    text = shown.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    for expected in ("128 pictures of 64 prompts", "20", "100.0%", "39.6%", "0.051", "-0.012..0.113", "0.421..0.516"):
        assert expected in text
    assert "bold" in text  # Names are text, not markup.


@pytest.mark.parametrize(
    ("low", "value", "high", "words"),
    [
        (-0.3, -0.2, -0.1, "The policy beats 8 plain steps"),
        (-0.3, -0.1, 0.1, "not beyond doubt"),
        (-0.1, 0.1, 0.3, "Nothing found within the budget beats 8 plain steps"),
        (0.0, 0.0, 0.0, "Nothing found within the budget beats 8 plain steps"),
    ],
)
def test_the_verdict_claims_no_more_than_was_seen(low: float, value: float, high: float, words: str) -> None:
    sentence = verdict(Interval(value=value, low=low, high=high), 8)
    assert words in sentence
    assert f"{value:+.3f} (95 % interval {low:+.3f} to {high:+.3f})" in sentence
