"""The services of the Compose file in the study's README, as processes on this machine."""

from __future__ import annotations

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import optuna
import pytest
import yaml

from studies.postgres import Server
from tests.support.fake_search import PROMPTS
from tests.support.readme import block

from . import world
from .test_devices import ROOT, SETTINGS
from .test_killed import whole

TRIALS = 16


def words(services: dict[str, Any], service: str, url: str) -> list[str]:
    """The arguments of a service's command, with another database."""
    program, *rest = shlex.split(services[service]["command"].replace("postgresql+psycopg://me@db/studies", url))
    return ["tune", *rest] if program == "postdiff-tune" else rest


@pytest.mark.slow
def test_tuner_worker_and_dashboard_of_the_compose_file(
    process: Callable[..., BaseProcess], model: Path, tmp_path: Path, postgresql: Server
) -> None:
    services = yaml.safe_load(block("compose.yaml"))["services"]
    assert {*services} == {"db", "tuner", "worker", "dashboard"}
    (tmp_path / "joined").touch()
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    small = ["--model", str(model), "--prompts", "prompts.txt", "--trials", str(TRIALS), *SETTINGS]
    common = (tmp_path, 0.2, tmp_path / "joined", str(ROOT))

    def ended(service: str, *more: str) -> int | None:
        each = process(world.command, [*words(services, service, postgresql.url), *more], *common)
        each.join(120)
        return each.exitcode

    assert ended("worker") == 2, "it came too early, and Compose starts it again"
    assert services["worker"]["restart"] == "on-failure"
    tuner = process(world.command, [*words(services, "tuner", postgresql.url), *small], *common)
    deadline = time.monotonic() + 60
    while "apples" not in optuna.get_all_study_names(postgresql.url):
        assert time.monotonic() < deadline and tuner.is_alive()
        time.sleep(0.1)
    while (code := ended("worker")) == 2:
        assert time.monotonic() < deadline
    assert code == 0
    tuner.join(120)
    assert tuner.exitcode in (0, 3)
    whole(postgresql.url, TRIALS, name="apples")

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = words(services, "dashboard", postgresql.url)
    arguments[arguments.index("--port") + 1] = str(port)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    dashboard = subprocess.Popen([sys.executable, "-m", "autotune.cli", *arguments], cwd=tmp_path, env=environment)
    try:
        assert [each["study_name"] for each in _studies(port)] == ["apples"]
    finally:
        dashboard.terminate()
        dashboard.wait(30)


def _studies(port: int) -> list[dict[str, Any]]:
    deadline = time.monotonic() + 120
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/api/studies", timeout=10) as answer:
                return list(json.load(answer)["study_summaries"])
        except URLError:
            assert time.monotonic() < deadline
            time.sleep(0.2)
