"""The storage: waited for while it is away, and never with its password on the screen."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import OperationalError

from autotune.core.errors import InputError, Unavailable
from autotune.study import storage as module
from autotune.study.storage import open_storage, shown
from autotune.study.trials import sqlite_url


@pytest.fixture
def url(tmp_path: Path) -> str:
    return sqlite_url(tmp_path / "study.db")


@pytest.fixture
def study(url: str) -> optuna.Study:
    return optuna.create_study(study_name="study", storage=open_storage(url))


def away(message: str = "server closed the connection") -> StorageInternalError:
    error = StorageInternalError("an exception is raised during the commit")
    error.__cause__ = OperationalError("SELECT 1", {}, Exception(message))
    return error


def test_a_server_that_comes_back_is_waited_for(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [away(), away()]
    backend = study._storage._backend  # type: ignore[attr-defined]
    original = backend.get_study_user_attrs

    def unsteady(study_id: int) -> object:
        if failures:
            raise failures.pop()
        return original(study_id)

    monkeypatch.setattr(backend, "get_study_user_attrs", unsteady)
    assert study.user_attrs == {}
    assert "does not answer (server closed the connection); waiting" in caplog.text
    assert "answers again" in caplog.text
    assert not study._storage.heard_all  # type: ignore[attr-defined]


def test_patience_ends(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(study_id: int) -> object:
        raise away()

    monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setattr(study._storage._backend, "get_study_user_attrs", gone)  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="repeat the same command"):
        _ = study.user_attrs


def test_a_password_is_not_shown() -> None:
    assert shown("postgresql+psycopg://me:secret@host/name") == "postgresql+psycopg://me:***@host/name"


def test_no_such_place_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        open_storage(sqlite_url(tmp_path / "missing" / "study.db"))
