"""Bad input costs one sentence, exit code 2, less than three seconds, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from autotune.policy import ModelInfo, Policy
from tests.support.builders import FAMILIES

from .conftest import Finished

SECONDS = 3.0

# One process for all cases: most of what a command takes until it refuses is the start of Python.
READER = """
import contextlib, io, json, os, sys, time
from autotune.cli import run

for line in sys.stdin:
    folder, *arguments = json.loads(line)
    os.chdir(folder)
    output, errors, started = io.StringIO(), io.StringIO(), time.monotonic()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = run(arguments)
    heavy = [name for name in ("torch", "diffusers", "transformers") if name in sys.modules]
    print(json.dumps([code, output.getvalue(), errors.getvalue(), time.monotonic() - started, heavy]), flush=True)
"""

CASES = [
    (["tune", "--budget", "0%"], "0%"),
    (["tune", "--budget", "140%"], "140%"),
    (["tune", "--budget", "abc"], "abc"),
    (["tune", "--budget", "-40%"], "-40%"),
    (["tune", "--budget", "140%ms"], "140%ms"),
    (["tune", "--budget", "0ms"], "0ms"),
    (["tune", "--budget", "0.5x"], "slower than the full run"),
    (["tune", "--budget", "40%,fast"], "'fast'"),
    (["tune", "--budget", "40%", "--budget", "2y"], "2y"),
    (["tune", "--target", "missing.json"], "missing.json"),
    (["tune", "--target", "other.json"], "not a profile"),
    (["tune", "--target", "negative.json"], "launch_ms is -1.0"),
    (["tune", "--target", "newer.json"], "profile version 2 is unknown"),
    (["tune", "--target", "gpu.json"], "another model"),
    (["tune", "--target", "gpu.json", "--batch", "3"], "none for 3"),
    (["tune", "--batch", "0"], "--batch"),
    (["tune", "--max-cache-memory", "lots"], "500MB"),
    (["tune", "--prompts", "missing.txt"], "missing.txt"),
    (["tune", "--prompts", "."], "."),
    (["tune", "--prompts", "empty.txt"], "no prompt"),
    (["tune", "--inputs", "missing.jsonl"], "missing.jsonl: No such file"),
    (["tune", "--inputs", "empty.txt"], "holds no input"),
    (["tune", "--inputs", "words.txt"], "line 1: is not JSON"),
    (["tune", "--inputs", "list.jsonl"], "write an object"),
    (["tune", "--inputs", "no_picture.jsonl"], "gone.png: cannot be read (No such file"),
    (["tune", "--inputs", "broken_picture.jsonl"], "binary.json: cannot be read as a picture"),
    (["tune", "--inputs", "two_kinds.jsonl"], "line 2 has 'class_label'"),
    (
        ["tune", "--inputs", "inputs.jsonl", "--prompts", "words.txt"],
        "--prompts and --inputs say the same thing twice",
    ),
    (["tune", "--reference", "missing"], "--reference missing"),
    (["tune", "--reference", "folder"], "holds no picture"),
    (["tune", "--weight-fd", "0", "--weight-clip", "0"], "--weight-clip 0"),
    (["tune", "--objective", "fidelity", "--weight-clip", "2"], "--objective fidelity"),
    (["tune", "--objective", "beauty"], "--objective"),
    (["tune", "--judge", "distence"], "did you mean 'distance'"),
    (["tune", "--judge", "error:much"], "no NAME or NAME:WEIGHT"),
    (["tune", "--judge", "error", "--judge", "error:2"], "'error' is named twice"),
    (["tune", "--judge", "error", "--weight-fd", "2"], "--judge names all judges"),
    (["tune", "--error-ceiling", "0"], "--error-ceiling is 0"),
    (["tune", "--error-pictures", "0"], "--error-pictures"),
    (["tune", "--space", "missing.toml"], "missing.toml"),
    (["tune", "--space", "empty.txt"], "changes nothing"),
    (["tune", "--study", "empty.txt", "--budget", "4"], "budget '4'"),
    (["tune", "--study", "binary.json"], "not TOML"),
    (["tune", "--batch-size", "0"], "--batch-size"),
    (["tune", "--model", "emoji-unit"], "did you mean 'emoji-unet'"),
    (["tune", "--model", "folder"], "model_index.json"),
    (["tune", "--model", "somebody/something"], "--prompts"),
    (["tune", "--model", "pipeline"], "--prompts"),
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
    (["tune", "--devices", "gpu,cpu"], "--devices gpu,cpu: 'gpu' is no device"),
    (["tune", "--devices", "cpu,cuda:0"], "scores of different kinds of device do not mix"),
    (["tune", "--devices", "cpu,cpu", "--device", "cpu"], "say the same thing twice"),
    (["tune", "--devices", "cpu,cpu", "--storage", "sqlite://"], "which is in memory"),
    (["tune", "--space", "cache-dti"], "or name an engine: cache-dit"),
    (["export", "none.json", "--to", "cache-dit", "--out", "cache.yaml"], "none.json"),
    (["export", "plain.json", "--to", "tensorrt", "--out", "cache.yaml"], "cache-dit"),
    (["export", "plain.json", "--to", "cache-dit", "--out", "."], "is a folder"),
    (["tune", "--dtype", "int8"], "--dtype"),
    (["tune", "--storage", "nowhere"], "--storage nowhere"),
    (["tune", "--out", "empty.txt/run"], "is a file"),
    (["tune", "--budgte", "40%"], "--budgte"),
    (["tune", "40%"], "40%"),
    (["tnue"], "tnue"),
    (["generate", "--out", "apple.png"], "--prompt"),
    (["generate", "--prompt", "apple"], "--out"),
    (["generate", "--out", "all", "--inputs", "two_kinds.jsonl", "--prompt", "a"], "say the same thing twice"),
    (["generate", "--out", "all", "--inputs", "no_picture.jsonl"], "gone.png: cannot be read"),
    (["generate", "--prompt", " ", "--out", "apple.png"], "--prompt"),
    (["generate", "--prompt", "a", "--prompt", "b", "--out", "both.png"], "both.png"),
    (["generate", "--prompt", "a", "--out", "a.png", "--policy", "missing.json"], "missing.json"),
    (["generate", "--prompt", "a", "--out", "a.png", "--policy", "other.json"], "another model"),
    (["compare"], "--policy"),
    (["compare", "--policy", "missing.json"], "missing.json"),
    (["compare", "--policy", "plain.json", "--policy", "binary.json"], "binary.json"),
    (["compare", "--policy", "plain.json", "--policy", "other.json"], "--policy other.json: the policy was made for"),
    (["compare", "--policy", "plain.json", "--images", "7"], "--images"),
    (["compare", "--policy", "plain.json", "--weight-fd", "0", "--weight-clip", "0"], "--weight-clip 0"),
    (["compare", "--policy", "plain.json", "--weight-clip", "-1"], "--weight-clip"),
    (["compare", "--policy", "plain.json", "--objective", "fidelity", "--weight-fd", "1"], "--objective fidelity"),
    (["compare", "--policy", "plain.json", "--objective", "beauty"], "--objective"),
    (["compare", "--policy", "plain.json", "--judge", "lpisp:1"], "no judge called 'lpisp'"),
    (["compare", "--policy", "plain.json", "--model", "somebody/something"], "--prompts"),
    (["compare", "--policy", "plain.json", "--prompts", "missing.txt"], "missing.txt"),
    (["compare", "--policy", "plain.json", "--inputs", "two_kinds.jsonl"], "line 2 has 'class_label'"),
    (["compare", "--policy", "plain.json", "--inputs", "inputs.jsonl", "--prompts", "words.txt"], "twice"),
    (["compare", "--policy", "plain.json", "--reference", "folder"], "holds no picture"),
    (["compare", "--policy", "plain.json", "--height", "63"], "multiples of 8"),
    (["compare", "--policy", "plain.json", "--lpips", "alexnet"], "--lpips"),
    (["compare", "--policy", "plain.json", "--device", "gpu"], "--device gpu"),
    (["compare", "--policy", "plain.json", "--out", "empty.txt/run"], "is a file"),
    (["price", "missing.json"], "missing.json"),
    (["price", "folder"], "folder"),
    (["price", "binary.json"], "not a JSON file"),
    (["price", "altered.json"], "changed after it was exported"),
    (["price", "unknown_key.json"], "did you mean 'timesteps'"),
    (["price", "other.json"], "another model"),
    (["price", "other.json", "--model", "pipeline"], "another model"),
    (["price", "plain.json", "--target", "missing.json"], "missing.json"),
    (["price", "plain.json", "--target", "gpu.json"], "another model"),
    (["price", "plain.json", "--batch", "0"], "--batch"),
    (["price", "plain.json", "--height", "63"], "multiples of 8"),
    (["profile", "--batch", "1,x"], "--batch 1,x"),
    (["profile", "--scales", "0.5,2"], "--scales 0.5,2"),
    (["profile", "--compile", "fast"], "--compile"),
    (["profile", "--out", "folder"], "is a folder"),
    (["profile", "--out", "empty.txt/gpu.json"], "is a file"),
    (["profile", "--device", "gpu"], "--device gpu"),
    (["profile", "--model", "folder"], "model_index.json"),
    (["dashboard", "."], "study.db"),
    (["dashboard", "missing"], "study.db"),
]


def profile_document() -> dict[str, Any]:
    """Of a model that is not shipped."""
    call = {"height": 8, "width": 8, "branches": 1, "forward_ms": 1, "always_ms": 1, "units_ms": [], "blocks_ms": []}
    corrections = {"call_ms": 0, "step_ms": 0, "denoiser": 1, "hook_ms": 0, "handoff_ms": 0}
    times = {"batch": 1, "text_encoder_ms": 1, "decoder_ms": 1, "calls": [call], "corrections": corrections}
    return {
        "format": "postdiff-profile",
        "version": 1,
        "date": "2026-01-01",
        "device": {"kind": "cuda", "name": "a GPU"},
        "dtype": "float16",
        "compile": "none",
        "versions": {},
        "model": {
            "pipeline": "StableDiffusionPipeline",
            "denoiser": "UNet2DConditionModel",
            "denoiser_fingerprint": "0" * 16,
            "height": 64,
            "width": 64,
            "text_tokens": 16,
            "guided": True,
        },
        "launch_ms": 0.01,
        "batches": [times | {"calibration": []}],
    }


@pytest.fixture
def files(tmp_path: Path, another_model: ModelInfo) -> Path:
    """Everything the cases name, unless it is meant to be missing."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    (tmp_path / "words.txt").write_text("a red apple\n")
    (tmp_path / "inputs.jsonl").write_text('{"prompt": "a red apple"}\n')
    (tmp_path / "list.jsonl").write_text('["a red apple"]\n')
    (tmp_path / "no_picture.jsonl").write_text('{"image": "gone.png"}\n')
    (tmp_path / "broken_picture.jsonl").write_text('{"image": "binary.json"}\n')
    (tmp_path / "two_kinds.jsonl").write_text('{"prompt": "a red apple"}\n{"class_label": 1}\n')
    Policy(steps=8).save(tmp_path / "altered.json")
    altered = json.loads((tmp_path / "altered.json").read_text()) | {"steps": 9}
    (tmp_path / "altered.json").write_text(json.dumps(altered))
    unknown = {"format": "postdiff-policy", "version": 1, "steps": 8, "timestep": "default"}
    (tmp_path / "unknown_key.json").write_text(json.dumps(unknown))
    Policy(steps=8, model=another_model).save(tmp_path / "other.json")
    Policy(steps=8).save(tmp_path / "plain.json")
    profile = profile_document()
    for name, changes in {"gpu": {}, "negative": {"launch_ms": -1.0}, "newer": {"version": 2}}.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(profile | changes))
    pipeline = tmp_path / "pipeline"
    pipeline.mkdir()
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    }
    (pipeline / "model_index.json").write_text(json.dumps(index))
    return tmp_path


@pytest.fixture(scope="module")
def reader(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Runs the commands that it reads, one after the other."""
    with subprocess.Popen(
        [sys.executable, "-c", READER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize(("arguments", "named"), CASES, ids=[" ".join(arguments) for arguments, _ in CASES])
def test_one_sentence_and_nothing_else(
    reader: subprocess.Popen[str], files: Path, arguments: list[str], named: str
) -> None:
    before = _contents(files)

    assert reader.stdin is not None and reader.stdout is not None
    reader.stdin.write(json.dumps([str(files), *arguments]) + "\n")
    reader.stdin.flush()
    code, output, errors, seconds, heavy = json.loads(reader.stdout.readline())

    _is_refused(Finished(code, output, errors, seconds), named)
    assert not heavy, "they take seconds to load"
    assert _contents(files) == before


@pytest.mark.parametrize("command", ["tune", "generate", "compare", "price", "profile", "dashboard"])
def test_a_process_is_as_quick_to_refuse(postdiff: Callable[..., Finished], files: Path, command: str) -> None:
    before = _contents(files)
    arguments, named = next(case for case in reversed(CASES) if case[0][0] == command)
    _is_refused(postdiff(*arguments), named)
    assert _contents(files) == before


def _is_refused(finished: Finished, named: str) -> None:
    assert finished.code == 2, finished.errors
    assert finished.output == ""
    (sentence,) = finished.errors.splitlines()
    assert sentence.startswith("postdiff: ")
    assert named in sentence
    assert finished.seconds < SECONDS


# What only the pipeline's class tells.
UNTAKEN = {
    "an unknown key": ("sd-img2img", [{"prompt": "a", "image": "cat.png", "strenght": 1}], "did you mean 'strength'?"),
    "no image": ("sd-img2img", [{"prompt": "a"}], "StableDiffusionImg2ImgPipeline needs 'image'"),
    "two strengths": (
        "sd-img2img",
        [{"prompt": "a", "image": "cat.png", "strength": strength} for strength in (0.5, 0.6)],
        "strength is 0.5 in one and 0.6 in another",
    ),
    "no step left": (
        "sd-img2img",
        [{"prompt": str(n), "image": "cat.png", "strength": 0.1} for n in range(20)],
        "none of 4",
    ),
    "too few": ("sd-img2img", [{"prompt": "a", "image": "cat.png"}], "1 inputs are too few to set some aside"),
    "no such class": ("dit", [{"class_label": 1000}], "class_label 1000 is none of DiTPipeline's"),
    "weight of no text": ("dit", [{"class_label": n} for n in range(20)], "leave it out"),
}


@pytest.mark.parametrize("case", UNTAKEN)
def test_inputs_that_a_pipeline_does_not_take(
    case: str, in_process: Callable[..., Finished], tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    name, rows, words = UNTAKEN[case]
    Image.new("RGB", (32, 32)).save(tmp_path / "cat.png")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    before = _contents(tmp_path)
    options = ("--steps", "4", "--images", "8", "--device", "cpu", "--features", "nothing")
    weight = ("--weight-clip", "1") if case == "weight of no text" else ()
    finished = in_process(
        "tune", "--model", str(saved(name, tmp_path_factory)), "--inputs", "rows.jsonl", *options, *weight
    )
    assert (finished.code, finished.output) == (2, "")
    (sentence,) = finished.errors.splitlines()
    assert sentence.startswith("postdiff: ") and words in sentence
    assert _contents(tmp_path) == before


def saved(name: str, factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline's folder, made once a process."""
    folder = factory.getbasetemp() / f"saved-{name}"
    if not folder.is_dir():
        FAMILIES[name].make().save_pretrained(folder)
    return folder


def test_lpips_weights_that_cannot_be_had_are_missed_before_anything_is_done(
    in_process: Callable[..., Finished], files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No weights here, and nobody answers at this address.
    monkeypatch.setenv("TORCH_HOME", str(files / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    finished = in_process("compare", "--policy", "plain.json", "--lpips", "squeeze", "--device", "cpu")
    assert (finished.code, finished.output) == (2, "")
    assert "the squeeze weights that LPIPS needs cannot be had" in finished.errors.splitlines()[-1]
    assert str(files / "torch") in finished.errors.splitlines()[-1]
    assert "Traceback" not in finished.errors
    assert not (files / "runs").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["tune", "--help"],
        ["--version"],
        ["tune", "--budget", "abc"],
        ["tune", "--study", "README.md"],
        ["--show-completion"],
    ],
)
def test_what_does_not_compute_does_not_load_torch(environment: dict[str, str], arguments: list[str]) -> None:
    script = "import sys; from autotune.cli import run; run(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}
