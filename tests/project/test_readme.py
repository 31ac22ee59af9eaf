"""Everything that the READMEs print is executed, here or by tests that take it from :mod:`tests.support.readme`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import torch
import typer.main
import yaml
from PIL import Image, ImageChops

import autotune
from autotune.cli import run
from autotune.cli.app import app
from autotune.cli.models import ModelSource
from autotune.cli.requests import TuneRequest
from autotune.cli.worker_processes import DeviceWorkers
from autotune.core.interrupts import Interrupted
from autotune.cost import Budget, Pricer
from autotune.evaluation.accepted_inputs import accepted
from autotune.evaluation.inputs import say_different
from autotune.options import TuneOptions
from autotune.policy import CacheRule, Guidance, Policy, PolicySet, ResolutionStage
from autotune.quality.floor import Floor
from autotune.workflows.tune import TuneResult
from search_spaces import space_for
from tests.support.builders import FAMILIES, sd_img2img
from tests.support.fake_hub import running, with_hub
from tests.support.fake_search import TRIALS, pipe, whole
from tests.support.profiles import synthetic_profile
from tests.support.readme import README, ROOT, TEXT, block, command, commands, executed, printed
from tests.support.serving import environment

__all__ = ["pipe", "whole"]

RUN = Path("runs/emoji-unet-40pct")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_everything_printed_is_executed_by_a_test() -> None:
    done = executed(ROOT / "tests")
    assert len(done) > 20
    missing = printed() - {*done}
    assert not missing, f"no test takes this from tests.support.readme to execute it: {missing}"


def test_a_test_that_only_mentions_a_command_does_not_execute_it(tmp_path: Path) -> None:
    source = """
        # def test_it(): print(command("postdiff report"))
        TABLE = {"postdiff profile": ("test_some.py", "test_it"), "step": command("postdiff worker")}

        def helper(): return command("postdiff worker")
        def test_and_drops(): command("postdiff worker")
        @pytest.mark.skip(reason="not today")
        def test_never(): return block("share.py")
        def test_it(): return command("postdiff generate"), block("deploy.py")
    """
    (tmp_path / "test_some.py").write_text(dedent(source))
    (generate,) = (text for text in commands() if text.startswith("postdiff generate"))
    assert executed(tmp_path) == {generate: ["test_some.py::test_it"], "deploy.py": ["test_some.py::test_it"]}


def test_ci_runs_the_printed_test_command() -> None:
    (pattern,) = re.findall(r"grep -m1 -E '([^']+)' README\.md", (ROOT / ".ci" / "run").read_text())
    found = subprocess.run(["grep", "-m1", "-E", pattern, "README.md"], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == block('pip install ".[test]"')
    assert EXTRAS["test"]


def test_three_commands_lead_from_a_clone_to_pictures_under_a_policy() -> None:
    assert [each.split()[0] for each in commands()[:3]] == ["pip", "postdiff-tune", "postdiff"]
    first = README.read_text(encoding="utf-8")
    assert first.index("postdiff generate") < first.index("\n## ")


def test_commands_and_options_in_the_text_exist() -> None:
    group: Any = typer.main.get_command(app)

    def options(command: Any) -> set[str]:
        return {"--help"}.union(*((*each.opts, *each.secondary_opts) for each in command.params))

    found = [*commands(), *re.findall(r"`((?:postdiff|python -m studies)[^`]*)`", TEXT)]
    assert len(found) > 15
    for text in found:
        program, *words = re.sub(r"[\[\]]", "", text).split()
        if program == "python" and words[1].startswith("studies"):
            module = find_spec(words[1])
            assert module is not None and module.origin is not None, text
            source = Path(module.origin).read_text(encoding="utf-8")
            assert all(f'"{word}"' in source for word in words if word.startswith("--")), text
        if program == "postdiff-tune":
            program, words = "postdiff", ["tune", *words]
        if program != "postdiff" or not words:
            continue
        asked = group if words[0].startswith("-") else group.commands[words[0]]
        assert {word for word in words if word.startswith("--")} <= options(asked), text
    known = options(group).union(*map(options, group.commands.values()))
    assert set(re.findall(r"`(--[a-z-]+)", TEXT)) <= known


def test_short_snippets_run_as_printed(tmp_path: Path) -> None:
    save_policy(tmp_path / RUN / "policy.json")
    snippets = {"deploy.py": block("deploy.py"), "policy.py": block("policy.py")}
    for name, text in snippets.items():
        assert len(text.splitlines()) < 15
        (tmp_path / name).write_text(text, encoding="utf-8")
    # In one process, whose imports take longer than the snippets; each leaves a picture.
    script = (
        "import pathlib, runpy\n"
        f"for name in {[*snippets]}:\n"
        "    made = runpy.run_path(name)\n"
        "    pathlib.Path('apple.png').rename(name + '.png')\n"
        "made['policy'].save('made.json')"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    for name in snippets:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert picture.size == (64, 64)
    assert autotune.load_policy(tmp_path / "made.json").key == autotune.load_policy(json.loads(block("{"))).key


def test_forecasts_are_fitted_as_printed(capsys: pytest.CaptureFixture[str]) -> None:
    made: dict[str, Any] = {}
    exec(block("fit.py"), made)
    assert made["fitted"].id == "s20-up_blocks.2i4w2"
    assert capsys.readouterr().out.strip().endswith(f"{made['fitted'].cache[0].weights}")


def test_tiers_are_searched_for_and_chosen_as_printed(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = searches(monkeypatch)
    assert run(tune_options(command("postdiff-tune --tier"))) == 130
    assert asked["budgets"] == ("60%", "40%", "25%")
    policies = {"high": Policy(steps=3), "medium": Policy(steps=2), "draft": Policy(steps=1)}
    # Where the snippets look for the file.
    PolicySet(tiers=policies).save(asked["run_dir"] / "policies.json")
    torch.manual_seed(0)
    made: dict[str, Any] = {}
    exec(block("tiers.py"), made)
    torch.manual_seed(0)
    pipe = autotune.demo_pipeline()
    for name, policy in (("image", policies["high"]), ("draft", policies["draft"]), ("full", Policy(steps=20))):
        with autotune.applied(pipe, policy):
            (expected,) = pipe("fluent red apple", guidance_scale=2.5).images
        assert ImageChops.difference(made[name], expected).getbbox() is None, name


def test_a_set_of_policies_is_as_printed() -> None:
    found = autotune.load_policies(json.loads(block('{"format": "postdiff-policies"')))
    assert [(name, policy.steps) for name, policy in found.tiers.items()] == [("high", 12), ("draft", 5)]


def test_a_policy_is_shared(tmp_path: Path) -> None:
    save_policy(tmp_path / RUN / "policy.json")
    with running() as hub:
        # The token is where 'hf auth login' would have left one.
        process = with_hub(hub, tmp_path, f"{block('share.py')}\nprint(policy.id)", token=hub.token)
    assert process.stdout.strip() == "s8-g6", process.stderr
    assert set(hub.files) == {"policy.json", "README.md"}


def test_a_model_of_ones_own(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = searches(monkeypatch)
    assert run(tune_options(command("postdiff-tune --budget 40% --model path/or/hub-id --prompts"))) == 130
    assert asked["budgets"] == ("40%",) and len(asked["prompts"]) == 12


def test_a_study_file_by_name(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = searches(monkeypatch)
    dry: list[TuneRequest] = []
    monkeypatch.setattr("autotune.cli.dry_run.run_dry", dry.append)
    assert run(tune_options(command("postdiff-tune --study sdxl-1024 --budget 40% --dry-run"))) == 0
    assert run(tune_options(command("postdiff-tune --study sdxl-1024 --budget 40%"))) == 130
    study = tomllib.loads((ROOT / "studies" / "sdxl-1024.toml").read_text())
    assert (dry[0].source.name, dry[0].options.images) == (study["model"], study["images"])
    assert (asked["budgets"], asked["steps"], asked["height"]) == (("40%",), study["steps"], study["height"])


def test_inputs_that_are_not_prompts(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("inputs.jsonl").write_text(block('{"prompt"'), encoding="utf-8")
    asked = searches(monkeypatch)
    assert run(tune_options(command("postdiff-tune --budget 40% --model path/or/hub-id --inputs"))) == 130
    taken = accepted(sd_img2img(), asked["inputs"])
    assert [row.label for row in taken.rows] == ["fluent red apple (one.png)", "noto green apple (one.png)"]
    assert taken.call == {"strength": 0.7} and say_different(taken.rows)


def test_knobs_are_narrowed(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("space.toml").write_text(block("[knobs]"), encoding="utf-8")
    asked = searches(monkeypatch)
    assert run(["tune", "--space", "space.toml"]) == 130
    space = space_for(autotune.demo_pipeline()).within(asked["space"])
    bounds = {knob.name: (knob.low, knob.high) for knob in space.knobs}
    assert (bounds["interval"], bounds["guidance_stop"]) == ((2, 10), (20, 20))


def test_fewer_or_cheaper_steps_are_asked_about(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = searches(monkeypatch)
    assert run(tune_options(command("postdiff-tune --budget 40% --explain"))) == 130
    assert asked["budgets"] == ("40%",) and asked["explain"] is True


def test_a_floor_is_asked_for(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = searches(monkeypatch)
    assert run(tune_options(command("postdiff-tune --max-loss 0.02"))) == 130
    assert asked["floors"] == ("loss 0.02",) and asked["budgets"] == ()


def test_a_budget_in_time(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = searches(monkeypatch)

    def measure(pipe: Any, *, batches: Any, **_: Any) -> Any:
        return synthetic_profile(Pricer(autotune.demo_pipeline()), batches)

    monkeypatch.setattr("autotune.cost.profile.measure.measure_profile", measure)
    monkeypatch.setattr("autotune.cost.measure_profile", measure, raising=False)
    monkeypatch.setattr("autotune.cli.profile._asked_scales", lambda *_: None)
    assert run(command("postdiff profile")[1:]) == 0
    assert [times.batch for times in autotune.cost.load_profile("gpu.json").batches] == [1, 4]
    assert run(tune_options(command("postdiff-tune --model path/or/hub-id"))) == 130
    assert asked["budgets"] == ("850ms",) and asked["target"].device.name == "a GPU"


def test_workers_join(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command('pip install ".[postgresql]"') == ["pip", "install", ".[postgresql]"] and EXTRAS["postgresql"]
    asked = searches(monkeypatch)
    joined: list[Any] = []
    monkeypatch.setattr("autotune.cli.worker.run_worker", joined.append)
    assert run(tune_options(command("postdiff-tune --budget 40% --storage"))) == 130
    assert (asked["trials"], asked["timeout"]) == (400, 8 * 3600)
    assert run(command("postdiff worker")[1:]) == 0
    assert (joined[0].storage, joined[0].study_name) == (asked["storage"], asked["study_name"])


def test_all_gpus_of_a_machine_work(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = searches(monkeypatch)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert run(tune_options(command("postdiff-tune --budget 40% --devices all"))) == 130
    assert asked["helpers"] == DeviceWorkers(("cuda:1", "cuda:2"))


def test_workers_of_a_cluster_join(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined: list[Any] = []
    monkeypatch.setattr("autotune.cli.worker.run_worker", joined.append)
    job = yaml.safe_load(block("workers.yaml"))["spec"]["template"]["spec"]
    (script,) = (line for line in block("#!/bin/bash").splitlines() if line.startswith("srun "))
    for words in (job["containers"][0]["command"], shlex.split(script)[1:]):
        assert words[0] == "postdiff" and run(words[1:]) == 0
    assert {each.storage for each in joined} == {"postgresql+psycopg://me@db/studies"}
    assert {each.study_name for each in joined} == {"apples"}


def test_a_policy_is_exported_to_cache_dit(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = searches(monkeypatch)
    assert run(tune_options(command("postdiff-tune --model emoji-dit"))) == 130
    assert asked["space"] == "cache-dit"
    pipe = autotune.demo_pipeline("emoji-dit")
    rule = CacheRule(units=("transformer_blocks.1-5",), mode="residual", compute_steps=(0, 1, 2, 6))
    policy = Policy(steps=12, model=autotune.full_policy(pipe).model, cache=(rule,))
    place = elsewhere / "runs" / "emoji-dit-40pct" / "policy.json"
    place.parent.mkdir(parents=True)
    policy.save(place)
    assert run(command("postdiff export")[1:]) == 0
    made: dict[str, Any] = {}
    exec(block("cached.py"), made)
    assert Path("apple.png").is_file()

    def picture(pipe: Any) -> Any:
        seed = torch.Generator().manual_seed(0)
        call = {"num_inference_steps": 12, "guidance_scale": 2.5, "generator": seed, **made["card"]}
        return np.asarray(pipe("fluent red apple", **call).images[0], dtype=int)

    theirs, cached = picture(made["pipe"]), made["cache_dit"].summary(made["pipe"], logging=False)[0].cached_steps
    made["cache_dit"].disable_cache(made["pipe"])
    with autotune.applied(pipe, policy):
        assert np.abs(picture(pipe) - theirs).max() <= 1
    assert cached == [3, 4, 5, *range(7, 12)]


def test_a_policy_is_exported_to_diffusers(elsewhere: Path) -> None:
    folder = elsewhere / "path" / "to" / "flux"
    FAMILIES["flux"].make().save_pretrained(folder)
    Policy(steps=4, cache=(CacheRule(units=("**.attn",), compute_steps=(0, 2)),)).save("policy.json")
    (text,) = re.findall(r"`(postdiff export policy.json [^`]*)`", TEXT)
    assert run([*shlex.split(text)[1:], "--model", str(folder)]) == 0
    made: dict[str, Any] = {}
    exec(block("taylorseer.py"), made)
    assert made["pipe"].transformer.is_cache_enabled and Path("cat.png").is_file()


def test_a_report_is_watched(
    whole: TuneResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole.run_dir, tmp_path / RUN)
    monkeypatch.chdir(tmp_path)
    assert run(command("postdiff report")[1:]) == 0
    assert capsys.readouterr().out == f"{RUN / 'report.html'}: {TRIALS} candidates, finished\n"


def test_the_plan_is_drawn_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = block("step ")
    rule = CacheRule(units=("up_blocks.2.resnets.0",), compute_steps=tuple(range(0, 18, 3)))
    Policy(steps=18, cache=(rule,)).save(tmp_path / "policy.json")
    monkeypatch.chdir(tmp_path)
    assert run(["describe", "policy.json", "--model", "emoji-unet"]) == 0
    said = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert drawn.rstrip().splitlines() == said[said.index(drawn.splitlines()[0]) :][: len(drawn.splitlines())]


def test_the_price_is_as_printed(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """But for the milliseconds, which are those of a machine, and the bars, whose room they leave."""
    table = block("units ")
    rule = CacheRule(units=("up_blocks.1",), compute_steps=(0, 5))
    stage = ResolutionStage(scale=0.5, until_step=4)
    Policy(steps=8, resolution=(stage,), cache=(rule,)).save(elsewhere / "policy.json")
    synthetic_profile(Pricer(autotune.demo_pipeline()), (8,)).save(elsewhere / "gpu.json")
    assert run(["price", "policy.json", "--target", "gpu.json", "--batch", "8"]) == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    headings, *rows = (line.split() for line in table.splitlines()[1:] if "──" not in line)
    first = said.index(headings)
    for row, line in zip(rows, said[first + 2 :], strict=False):
        assert (row[:6], row[7:9]) == (line[:6], line[7:9])


def save_policy(path: Path) -> Policy:
    policy = Policy(steps=8, guidance=Guidance(stop_step=6), model=autotune.full_policy(autotune.demo_pipeline()).model)
    policy.save(path)
    return policy


def tune_options(words: list[str]) -> list[str]:
    assert words[0] == "postdiff-tune"
    return ["tune", *words[1:]]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README's commands name: a model, prompts and pictures."""
    model = tmp_path / "path" / "or" / "hub-id"
    model.mkdir(parents=True)
    shipped = ModelSource.find("emoji-unet").folder
    assert shipped is not None
    for name in ("model_index.json", "postdiff.json"):
        shutil.copy(shipped / name, model)
    (tmp_path / "prompts.txt").write_text("\n".join(f"noto thing {number}" for number in range(12)))
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "pictures" / "one.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def searches(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What searches are asked for from now on; each is interrupted before it begins."""
    asked: dict[str, Any] = {}

    def tune_budgets(
        pipe: object, budgets: tuple[Budget, ...], options: TuneOptions, helpers: DeviceWorkers | None
    ) -> None:
        asked.update(vars(options), budgets=tuple(map(str, budgets)), helpers=helpers)
        raise Interrupted(Path(options.run_dir or ""))

    def tune_floors(
        pipe: object, floors: tuple[Floor, ...], budget: Budget | None, options: TuneOptions, helpers: object
    ) -> None:
        asked.update(floors=tuple(map(str, floors)))
        tune_budgets(pipe, () if budget is None else (budget,), options, None)

    # Not "from autotune.workflows import tune", which is the function.
    monkeypatch.setattr(import_module("autotune.workflows.tune"), "tune_budgets", tune_budgets)
    monkeypatch.setattr(import_module("autotune.workflows.tune_floors"), "tune_floors", tune_floors)
    monkeypatch.setattr(ModelSource, "load", lambda *_, **__: object())
    return asked
