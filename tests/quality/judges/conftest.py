"""Judges' own folders with random weights in the published formats, and no network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.quality.judges.files import VARIABLE


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes the folder of a judge."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "judges"))

    def folder(judge: str) -> Path:
        path = tmp_path / "judges" / judge
        path.mkdir(parents=True)
        return path

    return folder


@pytest.fixture
def nothing_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No judge's folder, empty caches, and no network."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "judges"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    return tmp_path
