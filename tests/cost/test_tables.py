"""Counted tables are kept on disk and only believed when whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autotune.core.cache_folder import VARIABLE
from autotune.cost import Pricer, tables
from autotune.cost.flops import count_work
from autotune.policy import Policy
from tests.support.tiny import tiny_sd


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry per count, none of them from memory."""
    counts: list[Any] = []

    def count(*args: Any) -> Any:
        counts.append(args)
        return count_work(*args)

    monkeypatch.setattr("autotune.cost.pricing.count_work", count)
    monkeypatch.setattr(tables, "_LOADED", {})
    return counts


def price(monkeypatch: pytest.MonkeyPatch) -> Any:
    """As in a new process."""
    monkeypatch.setattr(tables, "_LOADED", {})
    return Pricer(tiny_sd()).price(Policy(steps=3))


def test_a_model_is_counted_once(folder: Path, counted: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    first = price(monkeypatch)
    assert price(monkeypatch) == first
    assert len(counted) == 1
    assert len(list(folder.rglob("*.json"))) == 1


def test_another_size_is_another_table(folder: Path, counted: list[Any]) -> None:
    pricer = Pricer(tiny_sd())
    assert pricer.table(16, 16) != pricer.table(8, 8)
    assert len(counted) == 2 == len(list(folder.rglob("*.json")))


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"units": [[1, 1]], "elements": [1], "always": [-1, 0]}', b"cut"])
def test_a_damaged_table_is_counted_again(
    folder: Path, counted: list[Any], monkeypatch: pytest.MonkeyPatch, damage: bytes
) -> None:
    first = price(monkeypatch)
    (file,) = folder.rglob("*.json")
    content = file.read_bytes()
    file.write_bytes(damage)
    assert price(monkeypatch) == first
    assert len(counted) == 2 and file.read_bytes() == content


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_fail(
    folder: Path, counted: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file where the folder should be")
    assert price(monkeypatch) == price(monkeypatch)
    assert len(counted) == 2
