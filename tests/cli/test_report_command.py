"""``postdiff report`` and ``postdiff describe policy.json``."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autotune.cli import run
from autotune.cli.report import run_report
from autotune.policy import CacheRule, Guidance, ModelInfo, Policy, ResolutionStage
from autotune.workflows.tune import TuneResult
from tests.report.conftest import finished
from tests.support.fake_search import TRIALS, pipe, whole

from .conftest import documented

__all__ = ["finished", "pipe", "whole"]


def test_the_page_is_written_and_named(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(finished)]) == 0
    page = finished / "report.html"
    assert page.read_text().startswith("<!doctype html>")
    assert capsys.readouterr().out == f"{page}: {TRIALS} candidates, finished\n"


def test_json_says_what_the_page_says(whole: TuneResult, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(whole.run_dir), "--json", "--out", str(tmp_path / "page.html")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.keys() == documented("report")
    assert said["report"] == str(tmp_path / "page.html") and (tmp_path / "page.html").is_file()
    assert said["finished"] and said["policy"] == whole.policy.id and len(said["candidates"]) == TRIALS
    assert said["last_round"]["difference"]["value"] == whole.finalists.difference.value


def test_watching_writes_again_when_there_is_more_and_ends_with_the_search(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    for name in ("policy.json", "finalists.json"):
        shutil.move(finished / name, kept / name)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        assert "data-reload" in (finished / "report.html").read_text()
        if len(waits) == 2:
            for file in kept.iterdir():
                shutil.copy(file, finished)

    run_report(finished, watch=True, wait=wait)
    assert len(waits) == 2
    assert [line.rpartition(" ")[2] for line in capsys.readouterr().out.splitlines()] == ["finished", "finished"]
    assert "data-reload" not in (finished / "report.html").read_text()


def test_watching_ends_quietly_with_ctrl_c(finished: Path) -> None:
    (finished / "policy.json").unlink()

    def wait(seconds: float) -> None:
        raise KeyboardInterrupt

    run_report(finished, watch=True, wait=wait)
    assert (finished / "report.html").is_file()


def test_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", str(tmp_path)]) == 2
    assert "study.db" in capsys.readouterr().err and not any(tmp_path.iterdir())


def test_a_page_needs_no_torch(finished: Path) -> None:
    script = (
        "import sys; from autotune.cli import run; code = run(['report', sys.argv[1]]);"
        " sys.exit(code or int(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules))))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(finished)], capture_output=True).returncode == 0


POLICY = Policy(
    steps=10,
    resolution=(ResolutionStage(scale=0.5, until_step=4),),
    guidance=Guidance(stop_step=8),
    cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 4, 6, 8)),),
)


def test_a_policy_is_described_in_words_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    POLICY.save(tmp_path / "policy.json")
    assert run(["describe", str(tmp_path / "policy.json")]) == 0
    said = capsys.readouterr().out
    assert POLICY.id in said and "Guidance in steps 1 to 8 only" in said and "on emoji-unet" in said
    lines = {line.split()[0]: line.split()[-1] for line in said.splitlines() if line.strip()}
    assert lines["guidance"] and len(lines["resolution"]) == 10
    assert any("up_blocks.1" in line and "%" in line for line in said.splitlines())
    assert "8 x 8 in calls 1 to 4" in said

    assert run(["describe", str(tmp_path / "policy.json"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["policy"]["steps"] == 10 and document["model"] == "emoji-unet"
    assert [column["height"] for column in document["plan"]["columns"]] == [8] * 4 + [16] * 6
    actions = {row["label"]: row["actions"] for row in document["plan"]["rows"]}
    assert set(actions["up_blocks.2"]) == {"compute"} and "not needed" in actions["mid_block"]


def test_an_exported_policy_says_what_it_is_worth(whole: TuneResult, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe", str(whole.run_dir / "policy.json")]) == 0
    said = capsys.readouterr().out
    assert "of the full run" in said and "held-out" in said and "study study" in said
    # Made for a model that is not shipped.
    assert "--model" in said


def test_a_policy_of_another_model_is_refused(
    another_model: ModelInfo, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Policy(steps=4, model=another_model).save(tmp_path / "policy.json")
    assert run(["describe", str(tmp_path / "policy.json"), "--model", "emoji-unet"]) == 2
    assert "another model" in capsys.readouterr().err
    assert run(["describe", "emoji-unet", "--model", "emoji-dit"]) == 2
    assert run(["describe", str(tmp_path / "missing.json")]) == 2
