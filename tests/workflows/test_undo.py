"""What a refusal takes back, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from autotune.core.errors import InputError, RunFailed
from autotune.study.storage import open_storage
from autotune.study.trials import sqlite_url
from autotune.workflows.undo import beyond_refusal, make_run_folder, undone_if_refused


def test_a_refusal_takes_back_folders_and_files(tmp_path: Path) -> None:
    with pytest.raises(InputError), undone_if_refused() as undo:
        make_run_folder(tmp_path / "a" / "b", undo)
        undo.contents(tmp_path / "a" / "b" / "outcomes")
        (tmp_path / "a" / "b" / "outcomes").mkdir()
        (tmp_path / "a" / "b" / "outcomes" / "x").touch()
        raise InputError("no")
    assert not any(tmp_path.iterdir())


def test_what_was_there_before_or_came_from_others_stays(tmp_path: Path) -> None:
    (tmp_path / "run" / "outcomes").mkdir(parents=True)
    with pytest.raises(InputError), undone_if_refused() as undo:
        make_run_folder(tmp_path / "run", undo)
        make_run_folder(tmp_path / "new", undo)
        undo.contents(tmp_path / "run" / "outcomes")
        (tmp_path / "new" / "theirs").touch()
        raise InputError("no")
    assert {path.name for path in tmp_path.rglob("*")} == {"run", "outcomes", "new", "theirs"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError(), RunFailed(), None])
def test_whatever_else_ends_it_takes_back_nothing(error: BaseException | None, tmp_path: Path) -> None:
    try:
        with undone_if_refused() as undo:
            make_run_folder(tmp_path / "run", undo)
            if error is not None:
                raise error
    except BaseException as raised:
        assert raised is error
    assert (tmp_path / "run").is_dir()


def test_what_is_forgotten_stays(tmp_path: Path) -> None:
    with pytest.raises(InputError), undone_if_refused() as undo:
        make_run_folder(tmp_path / "run", undo)
        undo.forget()
        raise InputError("no")
    assert (tmp_path / "run").is_dir()


def test_new_studies_go_and_others_stay(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "study.db")
    with pytest.raises(InputError), undone_if_refused() as undo:
        undo.studies(url, {"first"})
        optuna.create_study(study_name="first", storage=open_storage(url))
        raise InputError("no")
    assert not any(tmp_path.iterdir())

    optuna.create_study(study_name="old", storage=open_storage(url))
    with pytest.raises(InputError), undone_if_refused() as undo:
        undo.studies(url, {"new"})
        optuna.create_study(study_name="new", storage=open_storage(url))
        raise InputError("no")
    assert optuna.get_all_study_names(open_storage(url)) == ["old"]


@pytest.mark.parametrize("path", ["file/run", "x" * 300, f"made/{'x' * 300}"])
def test_a_folder_that_cannot_be_made_leaves_none(path: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made a run directory"), undone_if_refused() as undo:
        make_run_folder(tmp_path / path, undo)
    assert {each.name for each in tmp_path.iterdir()} == {"file"}


def test_too_late_for_a_refusal() -> None:
    with pytest.raises(RunFailed, match="damaged"), beyond_refusal():
        raise InputError("damaged")
