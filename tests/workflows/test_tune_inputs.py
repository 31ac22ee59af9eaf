"""Searches on inputs that are not prompts, with real tiny pipelines, from the inputs to the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from torch import Tensor

from autotune.core.errors import InputError
from autotune.cost import parse_budget
from autotune.evaluation.inputs import read_rows
from autotune.options import SetupOptions, TuneOptions
from autotune.policy import read_policy
from autotune.quality.panel import DEFAULT_PANEL
from autotune.report.page import provenance, render
from autotune.report.run import Run, read_run
from autotune.report.snippet import snippet
from autotune.results.gallery import FOLDER, read_gallery
from autotune.study.manifest import Manifest, manifest_of, publish
from autotune.study.trials import CONFIG
from autotune.workflows.setup import prepare
from autotune.workflows.tune import TuneResult, tune
from autotune.workflows.worker import JoinedStudy, work
from tests.support.builders import FAMILIES

COUNT = 12
# Knobs that leave fewer steps and reuse, and so few known recipes.
FEW = {
    name: (0, 0)
    for name in (
        *("switch", "handoff", "middle", "warm_up", "cool_down", "late_interval", "second_depth", "forecast"),
        *("guidance_start", "gate", "solver", "skew"),
    )
}
FEW |= {"guidance_stop": (20, 20), "interval": (1, 2), "late_start": (10, 10), "second_interval": (1, 1)}


class Colours:
    """A network whose features are the mean colours of a picture's quarters and their contrasts: it reads no text."""

    def image_features(self, images: Tensor) -> Tensor:
        values = images.float() / 255
        contrasts = torch.stack([values.diff(dim=axis).abs().mean((1, 2, 3)) for axis in (2, 3)], dim=1)
        return torch.cat([torch.nn.functional.adaptive_avg_pool2d(values, 2).flatten(1), 4 * contrasts], dim=1)


@pytest.fixture(autouse=True)
def _no_image_text_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these searches needs one."""

    def refuse(name: str, **_: Any) -> None:
        raise AssertionError(f"{name} is loaded")

    monkeypatch.setattr("autotune.evaluation.judges.Scorer", refuse)


def write_inputs(folder: Path, *, strength: float = 0.75) -> Path:
    """All with the same prompt, which therefore says nothing of what tells pictures apart."""
    folder.mkdir(exist_ok=True)
    for number in range(COUNT):
        Image.new("RGB", (40, 32 + number), (20 * number, 100, 50)).save(folder / f"{number}.png")
    rows = [{"prompt": "red cat", "image": f"{number}.png", "strength": strength} for number in range(COUNT)]
    path = folder / "inputs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def arguments(folder: Path) -> dict[str, Any]:
    return {
        "network": Colours(), "objective": "fidelity", "steps": 4, "images": 8, "held_out_images": 8, "trials": 1,
        "run_dir": folder, "study_name": "study", "quiet": True, "space": FEW,
    }  # fmt: skip


@dataclass(frozen=True)
class World:
    """A finished search of image-to-image. Only to be read."""

    model: Path
    inputs: Path
    result: TuneResult

    @property
    def pipe(self) -> Any:
        pipe = DiffusionPipeline.from_pretrained(self.model)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    @property
    def run(self) -> Run:
        return read_run(self.result.run_dir)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("img2img")
    FAMILIES["sd-img2img"].make().save_pretrained(folder / "model")
    inputs = write_inputs(folder / "inputs")
    found = World(folder / "model", inputs, None)  # type: ignore[arg-type]
    result = tune(found.pipe, "60%", inputs=inputs, **arguments(folder / "run"))
    yield World(folder / "model", inputs, result)


def test_what_all_calls_are_given_is_part_of_what_the_study_is(world: World, tmp_path: Path) -> None:
    config = world.result.study.user_attrs[CONFIG]
    assert config["call"] == {"strength": 0.75} and config["scorer"] is None
    other = write_inputs(tmp_path / "inputs", strength=0.5)
    given = arguments(world.result.run_dir)
    with pytest.raises(InputError, match=r"cannot be resumed: its strength was 0.75, now it is 0.5;"):
        tune(world.pipe, "60%", inputs=other, **given)


def test_the_same_inputs_resume(world: World) -> None:
    again = tune(world.pipe, "60%", inputs=world.inputs, **arguments(world.result.run_dir))
    assert len(again.study.trials) == len(world.result.study.trials)
    assert again.policy.key == world.result.policy.key


def test_a_policy_without_alignment_is_of_the_version_that_has_it(world: World) -> None:
    policy = read_policy(world.result.policy_file)
    assert policy.version == 2 and policy.quality is not None
    assert policy.quality.scorer is None and policy.quality.policy.alignment is None
    assert policy.quality.prompts == len(set(world.result.preview_prompts))


def test_pictures_that_were_given_are_shown_beside_those_that_were_made(world: World) -> None:
    gallery = read_gallery(world.result.run_dir)
    assert gallery is not None and gallery.by == "change"
    rows = {row.label: row for row in read_rows(world.inputs)}
    for shown in gallery.prompts:
        (given,) = shown.given
        assert given.name == "image"
        with Image.open(world.result.run_dir / FOLDER / given.file) as image:
            assert image.convert("RGB").tobytes() == rows[shown.prompt].pictures["image"].opened((32, 32)).tobytes()
    assert set(world.result.preview_inputs) == {"image"}
    page = render(world.run)
    assert page.count("what the pipeline was given") == len(gallery.prompts)
    assert "Scores on held-out inputs" in page and '<th scope="col">alignment</th>' not in page


def test_the_report_says_what_was_not_measured_and_what_calls_were_given(world: World) -> None:
    facts = provenance(world.run)
    assert facts["call's strength"] == "0.75"
    assert facts["alignment"] == "not measured: the inputs have no prompts that differ"


def test_the_reports_snippet_runs_and_calls_the_pipeline_as_the_search_did(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = snippet(world.run)
    assert code is not None and "strength=0.75" in code and "load_image(" in code and "height=" not in code
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "snippet.py", "exec"), {})
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (32, 32)


def test_prices_are_of_the_steps_that_are_left(world: World) -> None:
    """Three of four steps are executed; of two steps one is."""
    search_record = world.run.search_record
    assert search_record is not None and search_record.skipped == {2: 1, 3: 1, 4: 1, 5: 2, 6: 2, 1: 1}
    finalists = world.result.finalists
    assert finalists.fewer_steps.policy.steps == 2 and finalists.fewer_steps.cost.relative == pytest.approx(1 / 3)
    for contender in (finalists.full, finalists.fewer_steps):
        breakdown = search_record.breakdown(contender.policy)
        assert breakdown is not None and sum(call.flops for call in breakdown.steps) == contender.cost.flops


def test_a_strength_that_leaves_no_step_is_refused_before_anything_is_written(world: World, tmp_path: Path) -> None:
    inputs = write_inputs(tmp_path / "inputs", strength=0.2)
    with pytest.raises(InputError, match=r"a strength of 0.2 leaves none of 4 steps; give a greater one, or 5 steps"):
        tune(world.pipe, "60%", inputs=inputs, **arguments(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def invited(pipe: Any, inputs: Any) -> JoinedStudy:
    """A study of these inputs as a tuner leaves it for workers."""
    prepared = {each.name for each in fields(SetupOptions)}
    given = {name: value for name, value in arguments(Path()).items() if name in prepared}
    options = TuneOptions(**given | {"inputs": inputs, "network": "colours", "batch_size": 4, "seed": 0})
    (setup,) = prepare(pipe, [parse_budget("60%")], options)
    study = optuna.create_study(study_name="study")
    study.set_user_attr(CONFIG, setup.configuration.document())
    publish(study, Manifest.of("study", pipe, setup, options))
    return JoinedStudy(study, manifest_of(study))


def test_workers_get_the_rows_and_refuse_other_pictures(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autotune.evaluation.judges.feature_network", lambda name, device: Colours())
    inputs = write_inputs(tmp_path / "inputs")
    joined = invited(world.pipe, inputs)
    (here,) = prepare(world.pipe, [parse_budget("60%")], joined.manifest.options())
    assert here.configuration.document() == joined.study.user_attrs[CONFIG]

    Image.new("RGB", (40, 32), (1, 2, 3)).save(tmp_path / "inputs" / "0.png")
    with pytest.raises(InputError, match="0.png: holds another picture here than where the search began"):
        work(world.pipe, [joined], tmp_path / "worker", quiet=True)
    assert not (tmp_path / "worker").exists()


def test_pictures_in_memory_keep_workers_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autotune.evaluation.judges.feature_network", lambda name, device: Colours())
    rows = [{"prompt": "", "image": Image.new("RGB", (32, 32), (20 * n, 100, 50))} for n in range(COUNT)]
    alone = invited(world.pipe, rows).manifest.alone
    assert alone == "its inputs hold pictures in memory; save them to files and name these"


def test_an_unconditional_pipeline_is_tuned_on_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(tmp_path / "run") | {"objective": "quality", "quiet": False}
    result = tune(FAMILIES["ddim"].make(), "60%", **given)
    assert "the seeds have no prompts that differ: alignment is no part of the loss" in capsys.readouterr().err
    assert result.noun == "seeds" and result.finalists.prompts == 8
    assert result.policy.quality is not None and result.policy.quality.weights["distance"] == DEFAULT_PANEL["distance"]
    assert result.policy.quality.guidance_scale is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"weight_clip": 2.0, "objective": "quality"}, "the inputs have no prompts that differ; leave it out"),
        ({"prompts": ["a", "b"]}, "prompts and inputs say the same thing twice"),
        ({"inputs": [{"prompt": "a", "image": Image.new("RGB", (32, 32))}]}, "1 inputs are too few to set some aside"),
        ({"inputs": [{"prompt": "a"}]}, "StableDiffusionImg2ImgPipeline needs 'image'"),
        ({"inputs": [{"prompt": "a", "picture": "a.png"}]}, "takes no 'picture'"),
        ({"held_out": [{"prompt": "a", "image": Image.new("RGB", (32, 32))}]}, "held_out and the other inputs are not"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    changes: dict[str, Any], words: str, world: World, tmp_path: Path
) -> None:
    given = arguments(tmp_path / "run") | {"inputs": world.inputs} | changes
    with pytest.raises(InputError, match=words):
        tune(world.pipe, "60%", **given)
    assert not (tmp_path / "run").exists()
