from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from autotune.policy import ContenderQuality, Interval
from autotune.report import Side, comparison_tables

QUALITY = ContenderQuality(
    loss=Interval(value=0.051, low=-0.112, high=0.113),
    distance=Interval(value=0.188, low=0.154, high=0.228),
    alignment=Interval(value=0.469, low=0.421, high=0.516),
    fidelity=Interval(value=0.07, low=0.05, high=0.09),
)
PSNR, SSIM = Interval(value=23.456, low=22.1, high=24.9), Interval(value=0.91, low=0.9, high=0.92)


def side(name: str, steps: int, identical: float = 0.0) -> Side:
    return Side(name, steps, steps / 20, QUALITY, PSNR, SSIM, identical)


def shown(*others: Side, width: int = 100) -> str:
    output = io.StringIO()
    console = Console(file=output, width=width)
    for part in comparison_tables([side("full run", 20, 1.0), *others], prompts=64, images=128, width=width):
        console.print(part)
    return output.getvalue()


def test_every_number_and_its_interval_is_shown() -> None:
    text = shown(side("[bold]mine", 8), side("a-very-long-name-of-a-policy", 13))
    for expected in (
        "128 pictures of 64 prompts", "40.0%", "65.0%", "0.051", "-0.112..0.113", "0.154..0.228", "0.421..0.516",
        "0.050..0.090", "23.46", "22.10..24.90", "0.900..0.920", "lower is better",
    ):  # fmt: skip
        assert expected in text
    assert "LPIPS" not in text
    assert "[bold]mine" in text  # Names are text, not markup.
    assert "a-very-long-na" in text and "me-of-a-policy" in text
    # To itself the full run is no matter of decibels.
    rows = [line for line in text.splitlines() if line.strip().startswith(("PSNR", "SSIM"))]
    assert [row.count("identical") for row in rows] == [1, 1]


@pytest.mark.parametrize(("width", "tables"), [(100, 2), (80, 3), (60, 4), (43, 7), (200, 1)])
def test_runs_that_do_not_fit_get_further_tables_with_the_full_run_again(width: int, tables: int) -> None:
    text = shown(*(side(f"p{number}", number) for number in range(1, 8)), width=width)
    heads = [line.split() for line in text.splitlines() if line.split()[:2] == ["full", "run"]]
    assert len(heads) == tables
    assert [name for head in heads for name in head[2:]] == [f"p{number}" for number in range(1, 8)]
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text and text.count("-0.112..0.113") == tables + 7
    if tables > 1:
        assert f"({tables} of {tables})" in text


def test_lpips_has_a_row_where_it_was_measured() -> None:
    nothing = Interval(value=0.0, low=0.0, high=0.0)
    full = replace(side("full run", 20, 1.0), lpips=nothing)
    mine = replace(side("mine", 8), lpips=Interval(value=0.1234, low=0.1, high=0.15))
    output = io.StringIO()
    for part in comparison_tables([full, mine], prompts=64, images=128, width=100):
        Console(file=output, width=100).print(part)
    (row, interval) = output.getvalue().split("LPIPS", 1)[1].splitlines()[:2]
    assert row.split() == ["identical", "0.123"] and interval.split() == ["0.100..0.150"]
    assert "LPIPS (perceptual distance" in output.getvalue()
