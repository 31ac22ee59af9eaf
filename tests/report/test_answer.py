"""Fewer or cheaper steps in the page, in its figures and in the terminal's table."""

from __future__ import annotations

import io
import json
from html import unescape
from typing import Any

import plotly.graph_objects as go
import pytest
from rich.console import Console

from autotune.report.answer import answer_table, rows_of
from autotune.report.dashboard import light, resolved
from autotune.report.facts import document
from autotune.report.page import render, render_question, view_of
from autotune.report.run import read_run
from autotune.search.tune import TuneResult
from autotune.search.ways import BOTH, CHEAPER, FEWER


@pytest.fixture(scope="module")
def view(explained: TuneResult) -> dict[str, Any]:
    return view_of(read_run(explained.run_dir))


def test_the_page_says_the_verdict_where_there_is_one(explained: TuneResult, whole: TuneResult) -> None:
    page = unescape(render(read_run(explained.run_dir)))
    assert explained.answer is not None
    assert all(sentence in page for sentence in explained.answer.verdict)
    assert explained.answer.rungs[1].winners[BOTH].id in page
    assert 'id="question"' not in render(read_run(whole.run_dir))
    alone = unescape(render_question(explained.answer))
    assert all(sentence in alone for sentence in explained.answer.verdict)


def test_figures_hold_every_winner_and_every_pair(explained: TuneResult, view: dict[str, Any]) -> None:
    losses, differences = (plot.figure for plot in view["question_plots"])
    assert explained.answer is not None
    rung = explained.answer.rungs[1]
    by_name = {trace["name"]: trace for trace in losses["data"]}
    for way in (FEWER, CHEAPER, BOTH):
        assert by_name[way]["y"][-1] == rung.winners[way].quality.loss.value
        high = by_name[way]["y"][-1] + by_name[way]["error_y"]["array"][-1]
        assert high == pytest.approx(rung.winners[way].quality.loss.high)
    assert [trace["y"][-1] for trace in differences["data"]] == [each.loss.value for each in rung.differences]
    for figure in (losses, differences):
        go.Figure(resolved(figure, light()))


def test_the_table_says_what_is_not_feasible_and_marks_what_is_beyond_doubt(explained: TuneResult) -> None:
    assert explained.answer is not None
    first, second = rows_of(explained.answer)
    assert first.ways[0].value == "not feasible" and first.ways[0].of == "the cheapest takes 10 %"
    assert [each.sure for each in second.differences] == [True, True, True]
    written = io.StringIO()
    Console(file=written, width=100).print(answer_table(explained.answer))
    text = written.getvalue()
    assert "not feasible" in text and f"{second.differences[0].value}*" in text


def test_the_facts_as_json_hold_the_verdict(explained: TuneResult, whole: TuneResult) -> None:
    assert explained.answer is not None
    found = json.loads(json.dumps(document(read_run(explained.run_dir), {})))
    assert found["fewer_or_cheaper_steps"] == list(explained.answer.verdict)
    assert document(read_run(whole.run_dir), {})["fewer_or_cheaper_steps"] is None
