"""Real comparisons on the shipped model, as a user would run them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from autotune.models.shipped import demo_assets
from autotune.policy import Guidance, Policy
from autotune.results.comparison import VERSION

from .conftest import Finished, documented

SCORES = ("loss", "distance", "alignment", "fidelity", "psnr", "ssim")
SMALL = ["--images", "16", "--device", "cpu"]


@pytest.fixture
def policies(tmp_path: Path) -> list[str]:
    """Arguments that name two policies of few steps."""
    Policy(steps=3).save(tmp_path / "three.json")
    Policy(steps=2, guidance=Guidance(stop_step=1)).save(tmp_path / "two.json")
    return ["--policy", "three.json", "--policy", "two.json"]


def test_two_policies_beside_the_full_run(
    postdiff: Callable[..., Finished], in_process: Callable[..., Finished], policies: list[str], tmp_path: Path
) -> None:
    first = postdiff("compare", *policies, *SMALL, "--json")
    assert first.code == 0, first.errors
    document = json.loads(first.output)
    folder = tmp_path / "runs" / "compare-three-two"
    assert document == json.loads((folder / "compare.json").read_text())
    assert document.keys() == documented("compare")
    assert (document["format"], document["version"]) == ("postdiff-comparison", VERSION)
    assert (document["images"], document["prompts"], document["batch_size"]) == (16, 16, 16)
    assert document["guidance_scale"] == demo_assets().guidance_scale
    assert document["scorer"].startswith("emoji-clip@")
    assert document["reference"].startswith("pictures.safetensors@")
    full, three, two = document["runs"]
    assert [run["steps"] for run in document["runs"]] == [20, 3, 2]
    assert full["loss"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert (full["identical"], three["identical"]) == (1.0, 0.0)
    assert full["psnr"]["value"] > three["psnr"]["value"] > two["psnr"]["value"]
    assert 0 < three["fidelity"]["value"] < two["fidelity"]["value"]
    assert (three["cost"]["relative"], two["cost"]["relative"]) == pytest.approx((3 / 20, 1.5 / 20))
    for run in document["runs"]:
        assert all(run[score]["low"] <= run[score]["value"] <= run[score]["high"] for score in SCORES)
    assert [(pair["a"], pair["b"]) for pair in document["pairs"]] == [("three", "two")]
    with Image.open(folder / "comparison.png") as grid:
        # Prompts and three columns; a heading and eight rows.
        assert grid.width > 4 * 128 and grid.height > 8 * 128
    assert "batch 1 of 1" in first.errors

    again = in_process("compare", *policies, *SMALL, "--objective", "fidelity")
    assert again.code == 0, again.errors
    assert "1 of 1 batches are already done" in again.errors and "batch 1 of" not in again.errors
    for expected in ("16 pictures of 16 prompts", "full run", "three", "two", "15.0%", "PSNR", "comparison.png"):
        assert expected in again.output
    sentence = json.loads((folder / "compare.json").read_text())["pairs"][0]["sentence"]
    assert sentence in again.output
    assert max(map(len, again.output.split(sentence)[0].splitlines())) <= 100

    quiet = in_process("compare", *policies, *SMALL, "--quiet")
    assert (quiet.code, quiet.output, quiet.errors) == (0, "", "")
    assert json.loads((folder / "compare.json").read_text()) == document


@pytest.mark.slow
def test_interrupted_by_ctrl_c_and_gone_on_with(
    in_process: Callable[..., Finished], policies: list[str], tmp_path: Path, environment: dict[str, str]
) -> None:
    options = ["--images", "48", "--steps", "4", "--device", "cpu", "--out"]
    command = ["compare", *policies, *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune.cli", *command, "run"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background makes its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while len(kept := list((tmp_path / "run").glob("batches/*.safetensors"))) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert output == ""
    assert "interrupted" in errors.splitlines()[-1] and "same command" in errors.splitlines()[-1]
    assert 4 <= len(kept) < 9
    assert not (tmp_path / "run" / "compare.json").exists()

    documents = []
    for folder in ("run", "whole"):
        finished = in_process(*command, folder, "--json")
        assert finished.code == 0, finished.errors
        documents.append(json.loads(finished.output))
    assert documents[0] == documents[1]
    assert len(list((tmp_path / "run").glob("batches/*"))) == 9
