from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from studies.postgres import NoServer, Server
from tests.support.fake_search import tiny_pipeline


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny untrained pipeline."""
    folder = tmp_path_factory.mktemp("model")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def process() -> Iterator[Callable[..., BaseProcess]]:
    """Run a function of :mod:`.world` in a process, forked from one that has loaded everything; killed at the end."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults.world"])
    started: list[BaseProcess] = []

    def start(function: Callable[..., None], *arguments: Any) -> BaseProcess:
        started.append(context.Process(target=function, args=arguments))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.join()


@pytest.fixture
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server."""
    try:
        server = Server()
    except NoServer as reason:
        pytest.skip(str(reason))
    yield server
    server.remove()
