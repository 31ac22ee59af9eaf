"""Folders with characters that URLs have a meaning for: the study is in them, and everything finds it there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import make_url

import autotune.evaluation.judges
from autotune.cli import run
from autotune.cli.dashboard import runs_in
from autotune.report.run import study_url
from autotune.study.storage import holds_studies, open_storage, shown, sqlite_file
from autotune.study.trials import sqlite_url
from autotune.workflows.worker import studies_of
from tests.support.fake_search import HELD_OUT, PROMPTS, FakePictures, ReadingScorer, tiny_pipeline, use_pictures

from .conftest import Finished

Run = Callable[..., Finished]

NAMES = [
    "what?", "a?b=c", "100%", "50%25", "%3F", "a#b", "a&b", "two words", "naïve 日本", "{x}", "{SCHEMA_VERSION}", "a+b",
    "a=b", "a;b", "a:b", "me@host", "'quoted'", '"quoted"', "back\\slash", "[1]", "$HOME", "~", "*", "tab\there",
]  # fmt: skip
EVERYTHING = "50%? #1 & {naïve} + 'ü' [日本]"


@pytest.mark.parametrize("name", NAMES)
def test_a_url_names_the_file_and_comes_back_as_it_was_printed(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "study.db"
    path.parent.mkdir()
    url = sqlite_url(path)
    assert not holds_studies(url) and not path.exists()
    optuna.create_study(study_name="study", storage=open_storage(url))
    assert [each.name for each in tmp_path.rglob("*")] == [name, "study.db"]
    for again in (url, shown(url), make_url(url).render_as_string(hide_password=False)):
        assert sqlite_file(again) == path
        assert holds_studies(again) and optuna.get_all_study_names(open_storage(again)) == ["study"]
    assert study_url(path.parent) == url


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("material")
    tiny_pipeline().save_pretrained(folder / "model")
    (folder / "prompts.txt").write_text("\n".join([*PROMPTS, *HELD_OUT]))
    return folder


def arguments(material: Path, out: str) -> list[str]:
    files = ["--model", str(material / "model"), "--prompts", str(material / "prompts.txt"), "--out", out]
    small = ["--steps", "10", "--images", "12", "--held-out-images", "12", "--trials", "1", "--device", "cpu"]
    return ["tune", *files, *small, "--scorer", "reading", "--study-name", "study", "--quiet"]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    use_pictures(FakePictures(), monkeypatch)
    monkeypatch.setattr(autotune.evaluation.judges, "Scorer", lambda name, device: ReadingScorer())
    # Of this process, whose own SIGTERM stays as it is.
    monkeypatch.setattr("autotune.cli.worker.signal.signal", lambda *_: None)


@pytest.fixture(scope="module")
def tuned(material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in a folder whose name has everything. Only to be read."""
    folder = tmp_path_factory.mktemp("tuned") / EVERYTHING
    with pytest.MonkeyPatch.context() as monkeypatch:
        use_pictures(FakePictures(), monkeypatch)
        monkeypatch.setattr(autotune.evaluation.judges, "Scorer", lambda name, device: ReadingScorer())
        assert run(arguments(material, str(folder))) in (0, 3)
    return folder


def test_a_run_is_where_it_was_asked_for(tuned: Path) -> None:
    assert {path.name for path in tuned.parent.iterdir()} == {EVERYTHING}
    assert {"study.db", "policy.json", "report.html", "log.txt", "artifacts"} <= {path.name for path in tuned.iterdir()}


@pytest.mark.parametrize("name", [EVERYTHING, *NAMES])
def test_everybody_finds_the_study(name: str, tuned: Path, in_process: Run, tmp_path: Path) -> None:
    shutil.copytree(tuned, tmp_path / name)
    reported = in_process("report", name)
    assert (reported.code, reported.errors) == (0, "") and "finished" in reported.output
    (shown_run,) = runs_in(Path(name), None).values()
    assert shown_run.study.study_name == "study" and len(shown_run.candidates) > 5
    (joined,) = studies_of(sqlite_url(Path(name) / "study.db"), "study")
    assert joined.study.study_name == "study"


@pytest.mark.parametrize("name", [EVERYTHING, "what?", "100%"])
def test_workers_join_and_the_same_command_goes_on(
    name: str, tuned: Path, material: Path, in_process: Run, tmp_path: Path
) -> None:
    folder = tmp_path / name
    shutil.copytree(tuned, folder)
    trials = len(optuna.load_study(study_name="study", storage=sqlite_url(folder / "study.db")).trials)
    url = sqlite_url(folder / "study.db")
    worked = in_process("worker", "--storage", url, "--study-name", "study", "--out", f"{name} 2", "--device", "cpu")
    assert (worked.code, "needs no more workers" in worked.output) == (0, True), worked.errors
    (folder / "policy.json").unlink()
    assert in_process(*arguments(material, name)).code in (0, 3)
    assert (folder / "policy.json").is_file()
    assert len(optuna.load_study(study_name="study", storage=url).trials) == trials
    assert {path.name for path in tmp_path.iterdir()} == {name, f"{name} 2"}


def test_a_storage_of_ones_own_is_recorded_so_that_the_report_finds_it(
    material: Path, in_process: Run, tmp_path: Path
) -> None:
    (tmp_path / EVERYTHING).mkdir()
    url = sqlite_url(tmp_path / EVERYTHING / "mine.db")
    assert in_process(*arguments(material, "run"), "--storage", url).code in (0, 3)
    assert not (tmp_path / "run" / "study.db").exists() and study_url(tmp_path / "run") == url
    assert in_process("report", "run").code == 0


def test_the_command_that_is_printed_can_be_pasted(
    material: Path, in_process: Run, capsys: Any, tmp_path: Path
) -> None:
    said = in_process(*[word for word in arguments(material, "two words") if word != "--quiet"]).output
    assert "postdiff dashboard 'two words'" in said
