"""Figures are valid plotly, and hold what the run holds."""

from __future__ import annotations

import json
from pathlib import Path

import plotly.graph_objects as go
import pytest

from autotune.report import plots
from autotune.report.dashboard import light, resolved
from autotune.report.importance import importance_of
from autotune.report.page import view_of
from autotune.report.run import read_run
from autotune.workflows.tune import TuneResult


@pytest.mark.parametrize("which", ["whole", "large"])
def test_plotly_accepts_every_figure(which: str, request: pytest.FixtureRequest) -> None:
    found = request.getfixturevalue(which)
    run = read_run(found.run_dir if isinstance(found, TuneResult) else found)
    shown = view_of(run)["plots"]
    assert {"frontier", "progress", "by-step", "by-kind", "by-part"} <= shown.keys()
    for plot in shown.values():
        go.Figure(resolved(plot.figure, light()))


def test_the_frontier_holds_every_candidate_once_and_the_budget(large: Path) -> None:
    run = read_run(large)
    figure = plots.frontier(run)
    markers = [trace for trace in figure["data"] if trace["mode"] == "markers" and trace["name"] != "in the last round"]
    assert sum(len(trace["x"]) for trace in markers) == len(run.evaluated)
    recipes = {each.recipe for each in run.evaluated if each.recipe}
    assert recipes <= {trace["name"] for trace in markers}
    assert any(shape["x0"] == shape["x1"] == pytest.approx(40, rel=1e-3) for shape in figure["layout"]["shapes"])
    edge = next(trace for trace in figure["data"] if trace["name"] == "best for the cost")
    assert edge["x"] == sorted(edge["x"]) and edge["y"] == sorted(edge["y"], reverse=True)
    assert min(edge["y"]) == run.best.loss if run.best else False


def test_best_so_far_never_rises_and_failures_are_told_apart(large: Path) -> None:
    run = read_run(large)
    points, best, failed = plots.progress(run)["data"]
    assert best["y"] == sorted(best["y"], reverse=True) and best["y"][-1] == min(points["y"])
    assert len(failed["x"]) == sum(each.failure is not None for each in run.candidates)


def test_importances_are_drawn_largest_first(large: Path) -> None:
    found = importance_of(read_run(large))
    (bars,) = plots.importances(found)["data"]
    assert bars["y"][-1] == next(iter(found)) and sum(bars["x"]) == pytest.approx(100)


def test_a_finalist_of_another_budget_is_no_candidate_of_this_search(finished: Path) -> None:
    def circled() -> list[float]:
        traces = plots.frontier(read_run(finished))["data"]
        return [x for trace in traces if trace["name"] == "in the last round" for x in trace["x"]]

    before = circled()
    path = finished / "finalists.json"
    document = json.loads(path.read_text())
    document["contenders"][2]["study"] = "study-60pct"
    path.write_text(json.dumps(document))
    assert len(circled()) == len(before) - 1
