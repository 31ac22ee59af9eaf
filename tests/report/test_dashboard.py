"""What a run's study carries for Optuna's dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import plotly.graph_objects as go
import pytest
from optuna.trial import TrialState, create_trial
from optuna_dashboard import get_note, save_note

from autotune.cli.dashboard import RunPages, _broken_requests_in, _ToLog, runs_in
from autotune.core.faults import no_tracebacks
from autotune.report.dashboard import KEPT, figures, light, publish, resolved, study_note
from autotune.report.page import plan_of
from autotune.report.plots import plan
from autotune.report.run import Run, read_run
from autotune.study.notes import OVER_BUDGET


def plots_in(study: optuna.Study) -> set[str]:
    keys = study._storage.get_study_system_attrs(study._study_id)
    return {key.split(":")[2] for key in keys if key.startswith("dashboard:plot_data:")}


def test_a_finished_run_has_everything(finished: Path) -> None:
    run = read_run(finished)
    publish(run, "/report")
    assert run.study.metric_names == ["loss"]
    assert plots_in(run.study) == {"postdiff-frontier", "postdiff-plan", "postdiff-cost-by-unit"}
    note = get_note(run.study)
    assert "within 40%" in note and "[The whole story on one page](/report)" in note
    assert f"{run.search_record.most_flops / 1e9:.4g} of the full run's" in note if run.search_record else False
    assert all(knob.split()[0] in note for knob in run.config["knobs"])


def test_a_search_that_has_not_ended_says_so(unfinished: Path) -> None:
    run = read_run(unfinished)
    assert "the search is not finished" in study_note(run)
    assert set(figures(run)) == {"frontier", "plan", "cost-by-unit"}


def test_what_people_wrote_stays_and_the_rest_is_written_anew(finished: Path) -> None:
    run = read_run(finished)
    save_note(run.study, "mine")
    publish(run)
    assert get_note(run.study) == study_note(run) + KEPT + "mine"
    save_note(run.study, get_note(run.study) + " too")
    publish(run, "/report")
    assert get_note(run.study) == study_note(run, "/report") + KEPT + "mine too"


def test_failures_are_told_apart(finished: Path) -> None:
    run = read_run(finished)
    reasons = {"MemoryError: none left": "**Failed**", OVER_BUDGET: "**Over the budget**", None: "**Cut off**"}
    for reason in reasons:
        given = {} if reason is None else {"failure": reason}
        run.study.add_trial(create_trial(state=TrialState.FAIL, user_attrs=given))
    publish(run)
    failed = run.study.get_trials(states=(TrialState.FAIL,))
    notes = [get_note(optuna.Trial(run.study, trial._trial_id)) for trial in failed]
    assert [note.partition(":")[0].partition(" by")[0].partition(", and")[0] for note in notes] == [*reasons.values()]


def test_a_study_that_nobody_of_us_made_is_left_alone() -> None:
    study = optuna.create_study()
    publish(Run(Path(), study, {}, (), None, None, None, None, None))
    assert get_note(study) == "" and study.metric_names is None


def test_the_plan_covers_every_call_of_every_row_once(finished: Path) -> None:
    picture = plan_of(read_run(finished))
    assert picture is not None
    figure = plan(picture)
    go.Figure(resolved(figure, light()))
    covered: dict[str, list[int]] = {}
    for trace in figure["data"]:
        for row, base, length in zip(trace["y"], trace["base"], trace["x"], strict=True):
            covered.setdefault(row, []).extend(range(round(base + 0.5), round(base + 0.5) + length))
    calls = list(range(1, len(picture.columns) + 1))
    covered.pop("guidance", None)
    assert len(covered) == 1 + len(picture.rows)
    assert all(sorted(found) == calls for found in covered.values())


def answer(pages: RunPages, path: str) -> tuple[str, bytes]:
    said: list[str] = []
    body = b"".join(pages({"PATH_INFO": path}, lambda status, headers: said.append(status)))
    return said[0], body


def test_pages_are_up_to_date_whenever_they_are_loaded(unfinished: Path) -> None:
    def dashboard(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"dashboard"]

    (run,) = runs_in(unfinished, None).values()
    pages = RunPages(dashboard, {"/report": run}, unfinished / "log.txt")
    assert answer(pages, "/dashboard/studies/1") == ("200 OK", b"dashboard")
    version = run.study._storage.get_study_system_attrs(run.study._study_id)["dashboard:note_ver"]
    trial = run.study.get_trials(deepcopy=False)[0]
    run.study.add_trial(trial)
    assert b"not finished" in answer(pages, "/report")[1]
    answer(pages, "/dashboard")
    assert run.study._storage.get_study_system_attrs(run.study._study_id)["dashboard:note_ver"] == version + 1
    (unfinished / "search.json").write_text(json.dumps({}))
    status, sentence = answer(pages, "/report")
    assert status.startswith("500") and b"search.json" in sentence


def test_a_request_that_breaks_is_answered_with_the_sentence(
    unfinished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def render(*args: Any, **kwargs: Any) -> str:
        raise RuntimeError("no such template\nanywhere")

    monkeypatch.setattr("autotune.cli.dashboard.render", render)
    pages = RunPages(lambda environ, start_response: [], runs_in(unfinished, None), unfinished / "log.txt")
    status, sentence = answer(pages, "/report")
    log = unfinished / "log.txt"
    assert status.startswith("500")
    assert sentence.decode() == f"RuntimeError in the report: no such template; its traceback is in {log}"
    assert capsys.readouterr().err == f"postdiff: {sentence.decode()}\n"
    assert "Traceback" in log.read_text() and "anywhere" in log.read_text()


def test_requests_that_break_inside_the_library_are_said_in_a_sentence(
    unfinished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Optuna's dashboard logs their tracebacks, bottle and the server print them."""
    from optuna_dashboard import wsgi

    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no such table")

    study = next(iter(runs_in(unfinished, None).values())).study
    app = RunPages(wsgi(study._storage), {}, unfinished / "log.txt")
    monkeypatch.setattr("optuna_dashboard._app.get_study", broken)
    monkeypatch.setattr("optuna_dashboard._app.redirect", broken)

    log = unfinished / "log.txt"
    before = len(log.read_text())
    with no_tracebacks(), _broken_requests_in(log):
        for path in ("/api/studies/1", "/"):
            environ: dict[str, Any] = {"PATH_INFO": path, "wsgi.errors": _ToLog()}
            setup_testing_defaults(environ)
            assert b"error" in b"".join(app(environ, lambda status, headers, information=None: None)).lower()
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(
        line.startswith("postdiff: a request broke (") and "no such table" in line and line.endswith(f"is in {log}")
        for line in errors
    )
    assert log.read_text()[before:].count("in broken") == 2


@pytest.mark.parametrize("color", ["ink", "blue", "compute", "reuse-ground", "page"])
def test_the_reports_colours_are_found(color: str) -> None:
    assert light()[color].startswith("#")
