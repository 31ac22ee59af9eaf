"""Fewer or cheaper steps in the page, in its figures and in the terminal's table."""

from __future__ import annotations

import io
import json
from html import unescape
from typing import Any

import plotly.graph_objects as go
import pytest
from rich.console import Console

from autotune.report.dashboard import light, resolved
from autotune.report.facts import document
from autotune.report.page import render, render_tradeoff, view_of
from autotune.report.run import read_run
from autotune.report.tradeoff import rows_of, tradeoff_table
from autotune.results.tradeoff import BOTH, CHEAPER, FEWER
from autotune.workflows.tune import TuneResult


@pytest.fixture(scope="module")
def view(explained: TuneResult) -> dict[str, Any]:
    return view_of(read_run(explained.run_dir))


def test_the_page_says_the_verdict_where_there_is_one(explained: TuneResult, whole: TuneResult) -> None:
    page = unescape(render(read_run(explained.run_dir)))
    assert explained.tradeoff is not None
    assert all(sentence in page for sentence in explained.tradeoff.verdict)
    assert explained.tradeoff.levels[1].winners[BOTH].id in page
    assert 'id="tradeoff"' not in render(read_run(whole.run_dir))
    alone = unescape(render_tradeoff(explained.tradeoff))
    assert all(sentence in alone for sentence in explained.tradeoff.verdict)


def test_figures_hold_every_winner_and_every_pair(explained: TuneResult, view: dict[str, Any]) -> None:
    losses, differences = (plot.figure for plot in view["tradeoff_plots"])
    assert explained.tradeoff is not None
    level = explained.tradeoff.levels[1]
    by_name = {trace["name"]: trace for trace in losses["data"]}
    for arm in (FEWER, CHEAPER, BOTH):
        assert by_name[arm]["y"][-1] == level.winners[arm].quality.loss.value
        high = by_name[arm]["y"][-1] + by_name[arm]["error_y"]["array"][-1]
        assert high == pytest.approx(level.winners[arm].quality.loss.high)
    assert [trace["y"][-1] for trace in differences["data"]] == [each.loss.value for each in level.differences]
    for figure in (losses, differences):
        go.Figure(resolved(figure, light()))


def test_the_table_says_what_is_not_feasible_and_marks_what_is_beyond_doubt(explained: TuneResult) -> None:
    assert explained.tradeoff is not None
    first, second = rows_of(explained.tradeoff)
    assert first.arms[0].value == "not feasible" and first.arms[0].of == "the cheapest takes 10 %"
    assert [each.sure for each in second.differences] == [True, True, True]
    written = io.StringIO()
    Console(file=written, width=100).print(tradeoff_table(explained.tradeoff))
    text = written.getvalue()
    assert "not feasible" in text and f"{second.differences[0].value}*" in text


def test_the_facts_as_json_hold_the_verdict(explained: TuneResult, whole: TuneResult) -> None:
    assert explained.tradeoff is not None
    found = json.loads(json.dumps(document(read_run(explained.run_dir), {})))
    assert found["fewer_or_cheaper_steps"] == list(explained.tradeoff.verdict)
    assert document(read_run(whole.run_dir), {})["fewer_or_cheaper_steps"] is None
