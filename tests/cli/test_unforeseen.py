"""Faults that nobody foresaw, in any command: one sentence, exit code 1, and the traceback in a file that it names."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.cli import FAILED, NOBODY_READS
from autotune.cli.faults import _KEPT
from autotune.cli.models import ModelSource
from autotune.core.cache_folder import cache_folder
from autotune.models.shipped import demo_pipeline
from autotune.policy import Policy

from .conftest import Finished

Run = Callable[..., Finished]

COMPARE = ("compare", "--policy", "policy.json")
GENERATE = ("generate", "--prompt", "a cat", "--out", "cat.png")
RESUMABLE = ("tune", "worker", "compare")
WORKER = ("worker", "--storage", "sqlite:///study.db", "--study-name", "study")
WEIGHTLESS = "autotune.cli.models.ModelSource.weightless_pipeline"
# Command, what breaks in it, the phase that is named, and the log in a run's folder that gets the traceback.
PLACES: list[tuple[tuple[str, ...], str, str, str | None]] = [
    (("tune", "--out", "run"), "autotune.cli.models.ModelSource.load", "while loading the model", "run/log.txt"),
    (("tune", "--out", "run"), "autotune.workflows.session.prepare", "while preparing the search", "run/log.txt"),
    (("tune", "--out", "run", "--dry-run"), "autotune.cli.dry_run.prepare", "while preparing the search", None),
    (("tune", "--out", "run", "--dry-run"), "autotune.cli.models.ModelSource.load", "while loading the model", None),
    ((*COMPARE, "--out", "run"), "autotune.cli.models.ModelSource.load", "while loading the model", "run/log.txt"),
    ((*COMPARE, "--out", "run"), "autotune.workflows.compare.judges", "while loading the scorer", "run/log.txt"),
    (GENERATE, "autotune.cli.models.ModelSource.load", "while loading the model", None),
    (GENERATE, "autotune.evaluation.pictures.picture_batches", "while making pictures", None),
    (("profile", "--out", "p.json"), "autotune.cli.models.ModelSource.load", "while loading the model", None),
    (("profile", "--out", "p.json"), "autotune.cost.measure_profile", "while measuring", None),
    (("price", "policy.json"), WEIGHTLESS, "while loading the model", None),
    (("price", "policy.json", "--json"), "autotune.cli.price.quote", "in postdiff price", None),
    (("describe", "policy.json"), WEIGHTLESS, "while loading the model", None),
    (("describe",), "autotune.cli.models.ModelSource.load", "while loading the model", None),
    (("report", "."), "autotune.cli.report.read_run", "while reading the run", "log.txt"),
    (("report", "missing"), "autotune.cli.report.read_run", "while reading the run", None),
    (("dashboard", "."), "autotune.cli.dashboard.study_url", "in postdiff dashboard", None),
    (("models",), "autotune.cli.supported.supported_pipelines", "in postdiff models", None),
    (("schema",), "autotune.policy.schema.policy_schema", "in postdiff schema", None),
    (("--version",), "autotune.cli.version.version_text", "in postdiff --version", None),
    (WORKER, "autotune.workflows.worker.studies_of", "in postdiff worker", "runs/study/log-*.txt"),
]


def at(place: str, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., Any]) -> None:
    """Put ``broken`` in a place. Some packages have functions of their modules' names, which a dotted path takes."""
    module, _, name = place.rpartition(".")
    target = ModelSource if module.endswith(".ModelSource") else import_module(module)
    monkeypatch.setattr(target, name, broken)


def raising(error: Exception) -> Callable[..., Any]:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise error

    return broken


def sentence(finished: Finished) -> str:
    assert (finished.code, finished.output) == (FAILED, ""), finished.errors
    (line,) = finished.errors.splitlines()
    return line.removeprefix("postdiff: ")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTDIFF_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize(("command", "place", "phase", "log"), PLACES)
def test_every_command(
    command: tuple[str, ...],
    place: str,
    phase: str,
    log: str | None,
    in_process: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Policy(steps=4).save(tmp_path / "policy.json")
    monkeypatch.setattr(ModelSource, "load", lambda *_, **__: demo_pipeline())
    at(place, monkeypatch, raising(RuntimeError("no \t kernel\nCompile with more")))
    said = sentence(in_process(*command))
    start, _, end = said.partition("; its traceback is in ")
    assert start == f"RuntimeError {phase}: no kernel"
    file, _, resumes = end.partition(", ")
    if log is None:
        (path,) = (cache_folder() / "errors").glob("*.txt")
    else:
        (path,) = tmp_path.glob(log)
    assert (tmp_path / file) == path
    text = path.read_text()
    assert "Traceback (most recent call last)" in text and "Compile with more" in text
    assert resumes == ("repeat the same command to go on" if command[0] in RESUMABLE and log else "")


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (("tune", "--out", "run"), "give a smaller --batch-size and another --out"),
        ((*COMPARE, "--out", "run"), "give a smaller --batch-size; "),
        (GENERATE, "ask for fewer pictures at once"),
        (("profile",), "give a smaller --batch; "),
        (("describe",), "end what else takes memory here"),
    ],
)
@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_too_little_memory(
    command: tuple[str, ...],
    remedy: str,
    error: Exception,
    in_process: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Policy(steps=4).save(tmp_path / "policy.json")
    monkeypatch.setattr(ModelSource, "load", raising(error))
    said = sentence(in_process(*command))
    assert said.startswith("out of memory while loading the model (") and remedy in said


def test_a_disk_that_is_full(in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSource, "load", raising(OSError(28, "No space left on device")))
    said = sentence(in_process(*GENERATE))
    assert said == "a file cannot be written ([Errno 28] No space left on device); make room"


def test_a_traceback_goes_elsewhere_where_its_file_cannot_be_written(
    in_process: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelSource, "load", raising(AssertionError()))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.txt").mkdir()
    said = sentence(in_process("tune", "--out", "run"))
    assert f"its traceback is in {cache_folder() / 'errors'}" in said

    monkeypatch.setenv("POSTDIFF_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    said = sentence(in_process("tune", "--out", "run"))
    assert f"its traceback is in {tmp_path / 'temporary' / 'postdiff-errors'}" in said

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    said = sentence(in_process("tune", "--out", "run"))
    assert said.startswith("AssertionError while loading the model; its traceback cannot be kept (")


def test_only_the_latest_tracebacks_are_kept(in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache_folder() / "errors"
    folder.mkdir()
    for number in range(_KEPT):
        (folder / f"2000-01-{number:02}.txt").touch()
    monkeypatch.setattr(ModelSource, "load", raising(AssertionError()))
    sentence(in_process(*GENERATE))
    assert len(list(folder.iterdir())) == _KEPT and not (folder / "2000-01-00.txt").exists()


def test_a_fault_in_what_says_so(in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSource, "load", raising(AssertionError()))
    monkeypatch.setattr("autotune.cli.faults.phase_of", raising(LookupError("nothing")))
    assert sentence(in_process(*GENERATE)) == "LookupError: nothing"


@pytest.mark.parametrize("error", [EOFError("Ran out of input"), BrokenPipeError(32, "Broken pipe")])
def test_what_typer_would_take_for_its_own(error: Exception, in_process: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a file is no user who closes standard input, and not every pipe is standard output."""
    monkeypatch.setattr("autotune.cli.supported.supported_pipelines", raising(error))
    assert sentence(in_process("models")).startswith(f"{type(error).__name__} in postdiff models: ")


@pytest.mark.parametrize("command", ["schema", "--help"])
@pytest.mark.parametrize("unbuffered", [False, True])
def test_a_reader_that_is_gone_ends_a_command_quietly(
    command: str, unbuffered: bool, environment: dict[str, str]
) -> None:
    """One prints, the other has rich print."""
    read, write = os.pipe()
    os.close(read)
    environment = environment | {"PYTHONUNBUFFERED": "1" if unbuffered else ""}
    process = subprocess.run(
        [sys.executable, "-m", "autotune.cli", command], env=environment, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (process.returncode, process.stderr) == (NOBODY_READS, b"")


def test_a_full_standard_output_is_said(environment: dict[str, str]) -> None:
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(
            [sys.executable, "-m", "autotune.cli", "schema"], env=environment, stdout=full, stderr=subprocess.PIPE
        )
    assert process.returncode == FAILED
    (line,) = process.stderr.decode().splitlines()
    assert line.startswith("postdiff: a file cannot be written ([Errno 28]")
