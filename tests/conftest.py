"""Tests run in parallel processes: one thread each, and no network."""

from __future__ import annotations

import gc
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

# Half a million objects are loaded before the first test, and none of them goes away. To look through them again and
# again for rubbish would take a fifth of all the time: what tests themselves leave behind is still collected.
gc.disable()

# Before torch is imported anywhere; subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Nothing of what is measured or counted elsewhere may decide a test, nor stay behind; the folder goes with the process.
_CACHE = tempfile.TemporaryDirectory(prefix="postdiff-tests-")
os.environ["POSTDIFF_CACHE"] = _CACHE.name


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@event.listens_for(Engine, "connect")
def _without_waiting_for_the_disk(connection: Any, record: Any) -> None:
    """Studies of tests need not outlive a power failure: their commits would take longer than all else they do."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Each process takes a stretch of the tests in their order, and the other's last ones when it is done.

    By default they take turns, and most of what a session makes once is made by all of them.
    """
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getoption("dist") == "load" else None


@pytest.fixture
def lpips_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Random weights of LPIPS's smallest backbone where torchvision looks for them, by the name its hash is part of.

    Of a file that is there the hash is not checked.
    """
    import torch
    import torchvision

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    url = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url
    file = tmp_path / "torch" / "hub" / "checkpoints" / Path(url).name
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.squeezenet1_1().state_dict(), file)
    return file
