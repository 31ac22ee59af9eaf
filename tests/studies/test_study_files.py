"""The study files run: each on the tiny pipeline of its class, with its own knobs, at a small size and few steps."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from autotune.cli import run
from autotune.cli.requests import TuneRequest
from autotune.evaluation.inputs import read_rows
from autotune.models.shipped import DEMO_NAMES
from autotune.plan import accepted_scales
from autotune.quality import general_prompts
from autotune.search.recipes import recipes_at_budget
from search_spaces import space_for
from studies import full_size
from tests.conformance.tuner import EXAMPLES, STEPS, Run, command_line, in_brief, judged, space_of
from tests.support.folders import brought

FOLDER = Path(__file__).parents[2] / "studies"


@dataclass(frozen=True)
class Model:
    """The model of a study file.

    Attributes:
        family: Of the tiny pipeline of its class.
        latent: Pixels a side that one of its latents stands for.
        multiple: Sides of its latents that the denoiser takes are multiples of this.
    """

    family: str
    latent: int = 8
    multiple: int = 2


MODELS = {
    "emoji-unet": Model("sd", multiple=4),
    "emoji-dit": Model("pixart-alpha"),
    "sd15-512": Model("sd", multiple=8),
    "sdxl-1024": Model("sdxl", multiple=4),
    "sdxl-refiner-1024": Model("sdxl-img2img", multiple=8),
    "sdxl-inpainting-1024": Model("sdxl-inpaint", multiple=4),
    "pixart-alpha-1024": Model("pixart-alpha-1024"),
    "pixart-sigma-1024": Model("pixart-sigma"),
    "sana-1024": Model("sana", latent=32, multiple=1),
    "sd3-1024": Model("sd3"),
    "sd35-medium-1024": Model("sd3"),
    "sd35-large-1024": Model("sd3"),
    "flux-dev-1024": Model("flux-dev"),
    "flux-schnell-1024": Model("flux"),
    "flux2-dev-1024": Model("flux2"),
    "qwen-image-1328": Model("qwen-image"),
    "z-image-turbo-1024": Model("z-image"),
}
# Of these the configs of the published size are at hand.
PUBLISHED = {
    "sd15-512": full_size.SD15,
    "sdxl-1024": full_size.SDXL,
    "pixart-sigma-1024": full_size.PIXART,
    "flux-dev-1024": full_size.FLUX,
}


def test_there_are_no_others() -> None:
    assert {file.stem for file in FOLDER.glob("*.toml")} == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_it_runs_on_the_tiny_pipeline_of_its_class(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer steps and what the sampler draws from the file's knobs."""
    model = MODELS[name]
    written = tomllib.loads((FOLDER / f"{name}.toml").read_text())
    knobs = written.get("knobs", {})
    if "scale" in knobs:
        knobs["scale"] = [_tiny(model, written["height"], index) for index in knobs["scale"]]
    (tmp_path / f"{name}.toml").write_text(_toml(written, FOLDER))
    monkeypatch.setattr("autotune.workflows.setup.recipes_at_budget", lambda proposer: recipes_at_budget(proposer)[:1])
    with in_brief():
        said = command_line("tune", "--study", str(tmp_path / f"{name}.toml"), *_small(model, written, tmp_path))
    assert said.code in (0, 3), said.errors
    found = Run(tmp_path / "run")
    assert found.failures == []
    assert len(found.complete) >= 4


def _small(model: Model, written: Mapping[str, Any], folder: Path) -> list[str]:
    """What is said on the command line in place of the file, because the pipeline is tiny."""
    tiny = brought(model.family)
    # The file's own guidance, and its own prompts or inputs where it has some.
    dropped = {"--guidance-scale"} | ({"--prompts", "--inputs"} if written.keys() & {"prompts", "inputs"} else set())
    few = ["--held-out-images", str(EXAMPLES), "--trials", "4", "--batch-size", str(EXAMPLES), "--dtype", "float32"]
    return [*_without(judged(tiny, STEPS), dropped), *few, "--budget", "75%", "--out", str(folder / "run")]


def _without(options: list[str], names: set[str]) -> list[str]:
    pairs = zip(options[::2], options[1::2], strict=True)
    return [word for pair in pairs if pair[0] not in names for word in pair]


def _tiny(model: Model, pixels: int, index: int) -> int:
    """The index of the tiny pipeline's scale that is nearest to the one that ``index`` means at the model's size."""
    side = pixels // model.latent
    scale = accepted_scales(side, side, model.multiple)[index]
    scales = space_of(model.family).scales
    return min(range(len(scales)), key=lambda each: abs(scales[each] - scale))


def _toml(document: Mapping[str, Any], folder: Path) -> str:
    """A study file again, its paths seen from elsewhere."""
    own = {key: value for key, value in document.items() if key != "knobs"}
    own |= {key: str(folder / own[key]) for key in ("inputs",) if key in own}
    lines = [f"{key} = {_value(value)}" for key, value in own.items()]
    if "knobs" in document:
        lines += ["[knobs]", *(f"{knob} = {ends}" for knob, ends in document["knobs"].items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_bounds_suit_the_published_size(name: str) -> None:
    written, model = tomllib.loads((FOLDER / f"{name}.toml").read_text()), PUBLISHED[name]
    pipe = full_size.build(model, "meta").pipe
    size = {"height": written["height"], "width": written["width"]}
    space = space_for(pipe, **size, steps=written["steps"], guided=model.guided)
    narrowed = space.within({knob: tuple(ends) for knob, ends in written["knobs"].items()})
    low, high = next((knob.low, knob.high) for knob in narrowed.knobs if knob.name == "scale")
    scales = narrowed.scales  # type: ignore[attr-defined]
    assert scales[low] >= 3 / 8 and scales[high] == 1


def test_negative_prompts_are_added_to_the_general_prompts() -> None:
    rows = read_rows(FOLDER / "qwen-image-1328.jsonl")
    assert [row.prompt for row in rows] == general_prompts()
    assert {row.arguments["negative_prompt"] for row in rows} == {""}


@pytest.mark.parametrize("name", DEMO_NAMES)
def test_of_shipped_models(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--images", "8", "--held-out-images", "8", "--batch-size", "1", "--device", "cpu"]
    assert run(["tune", "--study", str(FOLDER / f"{name}.toml"), "--budget", "40%", *few, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "fewer steps" in said and "96 candidates" in said and "30.0 minutes" in said
    assert not any(tmp_path.iterdir())


def test_the_command_line_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TuneRequest] = []
    monkeypatch.setattr(import_module("autotune.cli.tune"), "run_tune", asked.append)
    said = ["--images", "32", "--timeout", "5m", "--height", "768", "--study-name", "mine"]
    assert run(["tune", "--study", str(FOLDER / "sdxl-1024.toml"), "--budget", "40%", *said]) == 0
    options = asked[0].options
    assert (options.images, options.timeout, options.height, options.study_name) == (32, 300, 768, "mine")
    assert (options.width, options.steps, options.batch_size) == (1024, 50, 4)
