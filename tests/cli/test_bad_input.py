"""Bad input costs one sentence, exit code 2, less than three seconds, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.policy import ModelInfo, Policy

from .conftest import Finished

SECONDS = 3.0

CASES = [
    (["tune", "--budget", "0%"], "0%"),
    (["tune", "--budget", "140%"], "140%"),
    (["tune", "--budget", "abc"], "abc"),
    (["tune", "--budget", "-40%"], "-40%"),
    (["tune", "--budget", "40%ms"], "not supported yet"),
    (["tune", "--prompts", "missing.txt"], "missing.txt"),
    (["tune", "--prompts", "."], "."),
    (["tune", "--prompts", "empty.txt"], "no prompt"),
    (["tune", "--reference", "missing"], "--reference missing"),
    (["tune", "--reference", "folder"], "holds no picture"),
    (["tune", "--model", "emoji-unit"], "did you mean 'emoji-unet'"),
    (["tune", "--model", "folder"], "model_index.json"),
    (["tune", "--model", "somebody/something"], "--prompts"),
    (["tune", "--height", "63"], "multiples of 8"),
    (["tune", "--width", "-8"], "multiples of 8"),
    (["tune", "--steps", "0"], "--steps"),
    (["tune", "--trials", "0"], "--trials"),
    (["tune", "--trials", "many"], "--trials"),
    (["tune", "--timeout", "soon"], "--timeout soon"),
    (["tune", "--timeout", "0m"], "--timeout 0m"),
    (["tune", "--images", "1"], "--images"),
    (["tune", "--seed", "-1"], "--seed"),
    (["tune", "--device", "gpu"], "--device gpu"),
    (["tune", "--dtype", "int8"], "--dtype"),
    (["tune", "--storage", "nowhere"], "--storage nowhere"),
    (["tune", "--out", "empty.txt/run"], "is a file"),
    (["tune", "--budgte", "40%"], "--budgte"),
    (["tune", "40%"], "40%"),
    (["tnue"], "tnue"),
    (["generate", "--out", "apple.png"], "--prompt"),
    (["generate", "--prompt", "apple"], "--out"),
    (["generate", "--prompt", " ", "--out", "apple.png"], "--prompt"),
    (["generate", "--prompt", "a", "--prompt", "b", "--out", "both.png"], "both.png"),
    (["generate", "--prompt", "a", "--out", "a.png", "--policy", "missing.json"], "missing.json"),
    (["generate", "--prompt", "a", "--out", "a.png", "--policy", "other.json"], "another model"),
    (["price", "missing.json"], "missing.json"),
    (["price", "folder"], "folder"),
    (["price", "binary.json"], "not a JSON file"),
    (["price", "altered.json"], "changed after it was exported"),
    (["price", "unknown_key.json"], "did you mean 'timesteps'"),
    (["price", "other.json"], "another model"),
    (["price", "other.json", "--model", "pipeline"], "another model"),
    (["dashboard", "."], "study.db"),
    (["dashboard", "missing"], "study.db"),
]


@pytest.fixture
def files(tmp_path: Path, another_model: ModelInfo) -> Path:
    """Everything the cases name, unless it is meant to be missing."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    Policy(steps=8).save(tmp_path / "altered.json")
    altered = json.loads((tmp_path / "altered.json").read_text()) | {"steps": 9}
    (tmp_path / "altered.json").write_text(json.dumps(altered))
    unknown = {"format": "postdiff-policy", "version": 1, "steps": 8, "timestep": "default"}
    (tmp_path / "unknown_key.json").write_text(json.dumps(unknown))
    Policy(steps=8, model=another_model).save(tmp_path / "other.json")
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }
    (pipeline / "model_index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.mark.parametrize(("arguments", "named"), CASES, ids=[" ".join(arguments) for arguments, _ in CASES])
def test_one_sentence_and_nothing_else(
    postdiff: Callable[..., Finished], files: Path, arguments: list[str], named: str
) -> None:
    before = _contents(files)

    finished = postdiff(*arguments)

    assert finished.code == 2, finished.errors
    assert finished.output == ""
    (sentence,) = finished.errors.splitlines()
    assert sentence.startswith("postdiff: ")
    assert named in sentence
    assert finished.seconds < SECONDS
    assert _contents(files) == before


@pytest.mark.parametrize("arguments", [["--help"], ["tune", "--help"], ["--version"], ["tune", "--budget", "abc"]])
def test_what_does_not_compute_does_not_load_torch(environment: dict[str, str], arguments: list[str]) -> None:
    script = "import sys; from autotune.cli import run; run(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
