from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import autotune
from autotune.cli import run
from autotune.policy import ModelInfo

SOURCE = Path(autotune.__file__).parents[1]


@dataclass(frozen=True)
class Finished:
    code: int
    output: str
    errors: str
    seconds: float


def documented(command: str) -> set[str]:
    """The keys that the results' README names of a command's JSON document."""
    readme = (Path(__file__).parents[2] / "autotune" / "results" / "README.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| `postdiff {command} --json` \| (.*) \|$", readme, re.MULTILINE)
    return set(re.findall(r"`(\w+)`", row))


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Subprocesses run the same package as the tests, installed or not, and reach no hub."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    # Compiles what every command imports, so that no test pays for it.
    subprocess.run([sys.executable, "-m", "autotune.cli", "tune", "--budget", "abc"], env=environment, check=False)
    return environment


@pytest.fixture
def postdiff(tmp_path: Path, environment: dict[str, str]) -> Callable[..., Finished]:
    """Run one command in ``tmp_path`` as a process of its own."""

    def run(*arguments: str) -> Finished:
        started = time.monotonic()
        process = subprocess.run(
            [sys.executable, "-m", "autotune.cli", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return Finished(process.returncode, process.stdout, process.stderr, time.monotonic() - started)

    return run


@pytest.fixture
def in_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Finished]:
    """The same in this process, where everything is loaded already: for all but the first of a test's commands."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run_here(*arguments: str) -> Finished:
        capsys.readouterr()
        started = time.monotonic()
        code = run(arguments)
        return Finished(code, *capsys.readouterr(), time.monotonic() - started)

    return run_here


@pytest.fixture
def another_model() -> ModelInfo:
    return ModelInfo(
        pipeline="StableDiffusionPipeline",
        denoiser="UNet2DConditionModel",
        denoiser_fingerprint="0" * 16,
        scheduler="DDIMScheduler",
        scheduler_fingerprint="0" * 16,
        height=64,
        width=64,
        full_steps=20,
    )
