"""What the commands do when their input is right: files, exit codes and words."""

from __future__ import annotations

import json
import platform
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import torch
from PIL import Image, ImageChops

import autotune
from autotune.cli import run
from autotune.cli.models import ModelSource
from autotune.core.interrupts import Interrupted
from autotune.cost import Budget, Cost
from autotune.models.shipped import demo_assets
from autotune.options import TuneOptions
from autotune.policy import ContenderQuality, Guidance, Interval, ModelInfo, Policy
from autotune.results.finalists import Contender, Finalists
from autotune.runtime import describe_model
from autotune.workflows.spending import Spending

from .conftest import Finished

# Not "from autotune.workflows import tune", which is the function.
tune_module = import_module("autotune.workflows.tune")


def test_version_and_help(postdiff: Callable[..., Finished]) -> None:
    version = postdiff("--version")
    assert version.code == 0
    named = dict(line.split() for line in version.output.splitlines())
    assert named["postdiff"] == autotune.__version__ and named["python"] == platform.python_version()
    assert (named["torch"], named["optuna"]) == (torch.__version__.partition("+")[0], optuna.__version__)
    assert list(named) == ["postdiff", "torch", "diffusers", "transformers", "optuna", "python"]
    for arguments in ([], ["--help"]):
        shown = postdiff(*arguments)
        assert shown.code == 0
        assert all(command in shown.output for command in ("tune", "generate", "price", "dashboard"))
        assert shown.seconds < 3


def test_console_scripts_lead_to_the_commands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(project["scripts"]) == {"postdiff", "postdiff-tune"}
    for script, arguments in (("postdiff", ["tune", "--budget", "abc"]), ("postdiff-tune", ["--budget", "abc"])):
        monkeypatch.setattr("sys.argv", [script, *arguments])
        module, _, function = project["scripts"][script].partition(":")
        with pytest.raises(SystemExit) as exit_:
            getattr(import_module(module), function)()
        assert exit_.value.code == 2
        assert "budget 'abc' is not understood" in capsys.readouterr().err


def test_the_shipped_model_records_its_fingerprints() -> None:
    source = ModelSource.find("emoji-unet")
    assert source.folder is not None
    record = json.loads((source.folder / "postdiff.json").read_text())["model"]
    assert record == describe_model(autotune.demo_pipeline()).model_dump(mode="json")


def test_generate_makes_the_picture_that_python_makes(
    postdiff: Callable[..., Finished], in_process: Callable[..., Finished], tmp_path: Path
) -> None:
    pipe = autotune.demo_pipeline()
    policy = Policy(steps=4, guidance=Guidance(stop_step=3), model=describe_model(pipe))
    policy.save(tmp_path / "policy.json")
    arguments = ["generate", "--prompt", "fluent red apple", "--device", "cpu", "--seed", "7"]

    finished = postdiff(*arguments, "--policy", "policy.json", "--out", "apple.png")
    plain = in_process(*arguments, "--prompt", "noto cat", "--out", "plain")

    assert (finished.code, finished.output, finished.errors) == (0, "", "")
    assert plain.code == 0, plain.errors
    with autotune.applied(pipe, policy):
        (expected,) = pipe(
            ["fluent red apple"],
            generator=[torch.Generator().manual_seed(7)],
            guidance_scale=demo_assets().guidance_scale,
        ).images
    with Image.open(tmp_path / "apple.png") as picture:
        assert ImageChops.difference(picture, expected).getbbox() is None
    assert sorted(file.name for file in (tmp_path / "plain").iterdir()) == [
        "00-fluent-red-apple.png",
        "01-noto-cat.png",
    ]


def test_price_says_what_python_says(
    postdiff: Callable[..., Finished], in_process: Callable[..., Finished], tmp_path: Path
) -> None:
    policy = Policy(steps=8)
    policy.save(tmp_path / "policy.json")
    cost = autotune.price(autotune.demo_pipeline(), policy)

    as_json, as_text = postdiff("price", "policy.json", "--json"), in_process("price", "policy.json")

    document = json.loads(as_json.output)
    assert (document["flops"], document["relative"]) == (cost.flops, cost.relative)
    assert "40.0% of the full run" in as_text.output


def _result(verdict: str, run_dir: Path, file: str, *notes: str, folder: str = "") -> SimpleNamespace:
    finalists = _finalists(verdict)
    (run_dir / folder).mkdir(exist_ok=True)
    return SimpleNamespace(
        tradeoff=None,
        policy=finalists.winner.policy,
        finalists=finalists,
        study=optuna.create_study(),
        run_dir=run_dir,
        policy_folder=run_dir / folder,
        policy_file=run_dir / file,
        noun="prompts",
        preview_prompts=("red apple", "blue cat"),
        preview_inputs={},
        previews=(torch.zeros(2, 3, 64, 64, dtype=torch.uint8),) * 3,
        spending=Spending(48, 3072, 4, 1, 10),
        notes=notes,
    )


def test_several_budgets_are_one_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def tune_budgets(
        pipe: object, budgets: tuple[Budget, ...], options: TuneOptions, helpers: None
    ) -> list[SimpleNamespace]:
        asked.update(vars(options), budgets=tuple(map(str, budgets)))
        return [
            _result("better", Path(options.run_dir or ""), "policy-40-1.2s.json", folder="40-1.2s"),
            _result("no better", Path(options.run_dir or ""), "policy-2x.json", folder="2x"),
        ]

    monkeypatch.setattr(tune_module, "tune_budgets", tune_budgets)
    monkeypatch.setattr(ModelSource, "load", lambda *_: object())
    budgets = ("--budget", "40%,1.2s", "--budget", "2x")
    more = ("--batch", "4", "--max-cache-memory", "500MB", "--sampler", "gp", "--no-early-stopping")
    both = tmp_path / "both"
    both.mkdir()
    # One of them found nothing better than fewer steps.
    assert run(["tune", *budgets, *more, "--out", str(both)]) == 3
    assert asked["budgets"] == ("40%,1.2s", "2x")
    assert (asked["run_dir"], asked["study_name"]) == (both, "emoji-unet-40pct-1.2s-2x")
    assert (asked["call_batch"], asked["max_cache_memory"]) == (4, 500_000_000)
    assert (asked["sampler"], asked["early_stopping"]) == ("gp", False)
    output = capsys.readouterr().out
    assert "3,072 pictures of 48 candidates, with 40% of the FLOPs" in output
    assert all(words in output for words in ("Budget 40%,1.2s", "Budget 2x", "policy-2x.json"))
    for budget in ("40-1.2s", "2x"):
        assert {file.name for file in (both / budget).iterdir()} == {"comparison.png", "report.html"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--budget", "40%", "--budget", "40%"), "given twice"),
        (("--frontier", "--budget", "40%"), "--frontier takes budgets of its own"),
    ],
)
def test_budgets_that_contradict_one_another(
    options: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["tune", *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(("verdict", "code", "words"), [("better", 0, "beats"), ("no better", 3, "fewer steps,")])
def test_tune_shows_the_result_and_tells_the_shell(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    verdict: str,
    code: int,
    words: str,
) -> None:
    asked: dict[str, Any] = {}

    def tune_budgets(
        pipe: object, budgets: tuple[Budget, ...], options: TuneOptions, helpers: None
    ) -> list[SimpleNamespace]:
        asked.update(vars(options), budgets=tuple(map(str, budgets)))
        return [_result(verdict, tmp_path, "policy.json", "the profile was taken with torch 1, here is 2")]

    monkeypatch.setattr(tune_module, "tune_budgets", tune_budgets)
    monkeypatch.setattr(ModelSource, "load", lambda *_: object())

    assert run(["tune", "--budget", "37.5%", "--timeout", "1.5m", "--out", str(tmp_path)]) == code

    assert asked["budgets"] == ("37.5%",)
    assert asked["study_name"] == "emoji-unet-37.5pct"
    assert asked["timeout"] == 90
    output = capsys.readouterr().out
    assert all(name in output for name in ("full run", "fewer steps", "policy", words, "policy.json"))
    with Image.open(tmp_path / "comparison.png") as grid:
        assert grid.width > 4 * 128
        assert grid.height > 2 * 128
    assert (tmp_path / "report.html").is_file() and "report.html" in output
    assert run(["tune", "--quiet", "--out", str(tmp_path)]) == code
    assert capsys.readouterr().out == ""


def test_an_interrupted_search_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def tune(pipe: object, budgets: object, options: TuneOptions, helpers: None) -> None:
        raise Interrupted(Path(options.run_dir or ""))

    monkeypatch.setattr(tune_module, "tune_budgets", tune)
    monkeypatch.setattr(ModelSource, "load", lambda *_: object())

    assert run(["tune", "--out", str(tmp_path)]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
    assert "same command" in line


def test_a_policy_for_another_model_is_refused_by_its_fingerprints(another_model: ModelInfo, tmp_path: Path) -> None:
    index = {
        "_class_name": another_model.pipeline,
        "unet": ["diffusers", another_model.denoiser],
        "scheduler": ["diffusers", another_model.scheduler],
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    source = ModelSource.find(str(tmp_path))
    source.check_policy(another_model)
    source.check_policy(None)
    record = {"model": another_model.model_dump() | {"denoiser_fingerprint": "1" * 16}}
    (tmp_path / "postdiff.json").write_text(json.dumps(record))
    with pytest.raises(autotune.errors.PolicyError, match="denoiser fingerprint is 0000000000000000"):
        source.check_policy(another_model)


def _finalists(verdict: str) -> Finalists:
    score = Interval(value=0.3, low=0.2, high=0.4)
    quality = ContenderQuality(loss=score, distance=score, alignment=score, fidelity=score)
    cost = Cost(4, 2, 0.4, None, 0)
    difference = Interval(value=-0.2, low=-0.3, high=-0.1 if verdict == "better" else 0.1)
    policy = Policy(steps=8)
    full, fewer, best = (
        Contender(name=name, trial=None, id=policy.id, policy=policy, cost=cost, quality=quality)
        for name in ("full run", "fewer steps", "trial 3")
    )
    return Finalists.of(full, fewer, [best], difference=difference, verdict=verdict, prompts=10, images=20)
