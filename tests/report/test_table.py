from __future__ import annotations

import io

import pytest
from rich.console import Console

from autotune.policy import ContenderQuality, Interval
from autotune.report import Row, results_table

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


def test_what_the_second_opinion_says_has_a_column_of_its_own() -> None:
    row = Row("full run", 20, 1.0, 1.0, QUALITY, second_opinion=Interval(value=0.321, low=0.3, high=0.35))
    shown = io.StringIO()
    Console(file=shown, width=100).print(results_table([row], prompts=64, images=128, second_opinion="wavelets"))
    assert all(words in shown.getvalue() for words in ("wavelets", "0.321", "0.300..0.350"))


@pytest.mark.parametrize("second", ["textures", None])
def test_errors_and_a_second_opinion_leave_what_decides_in_eighty_columns(second: str | None) -> None:
    erring = QUALITY.model_copy(update={"error": Interval(value=0.234, low=0.2, high=0.27)})
    opinion = None if second is None else Interval(value=-0.321, low=-0.35, high=-0.3)
    row = Row("fewer steps", 20, 1.0, 1.0, erring, second_opinion=opinion)
    shown = io.StringIO()
    Console(file=shown, width=80).print(results_table([row], prompts=64, images=128, second_opinion=second))
    text = shown.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    seconds = () if second is None else ("-0.321", "-0.350..-0.300", second)
    for expected in ("fewer", "0.234", "0.200..0.270", "0.051", "-0.012..0.113", *seconds):
        assert expected in text


def test_a_second_opinion_that_was_not_asked_has_no_column() -> None:
    row = Row("full run", 20, 1.0, 1.0, QUALITY, second_opinion=Interval(value=0.321, low=0.3, high=0.35))
    assert len(results_table([row], prompts=64, images=128).columns) == 7
