"""The study files fit the command, their models' search spaces and, where the model is here, a dry run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from autotune.cli import run
from autotune.cli.requests import TuneRequest
from autotune.models.shipped import DEMO_NAMES
from autotune.options import TuneOptions
from autotune.quality import general_prompts, split
from search_spaces import SearchSpace, space_for
from studies import full_size
from tests.support.builders import FAMILIES

FILES = sorted((Path(__file__).parents[2] / "studies").glob("*.toml"))
SHIPPED = [file for file in FILES if file.stem in DEMO_NAMES]
OTHERS = [file for file in FILES if file.stem not in DEMO_NAMES]

# Where configs of the published size are at hand, bounds are checked against them; else knobs against a small model's.
PUBLISHED = {
    "sd15-512": full_size.SD15,
    "sdxl-1024": full_size.SDXL,
    "pixart-sigma-1024": full_size.PIXART,
    "flux-dev-1024": full_size.FLUX,
}
SMALL = {"pixart-alpha-1024": "pixart-alpha", "sd3-1024": "sd3", "sd35-medium-1024": "sd3"}


@pytest.fixture
def options_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TuneRequest]:
    """What the command makes of a file, short of running it."""
    asked: list[TuneRequest] = []

    def take(request: TuneRequest) -> int:
        asked.append(request)
        return 0

    monkeypatch.setattr(import_module("autotune.cli.tune"), "run_tune", take)

    def options(file: Path, *arguments: str) -> TuneRequest:
        assert run(["tune", "--study", str(file), *arguments]) == 0
        return asked[-1]

    return options


def space_of(name: str, options: TuneOptions) -> SearchSpace:
    if name in PUBLISHED:
        model = PUBLISHED[name]
        pipe: Any = full_size.build(model, "meta").pipe
        return space_for(pipe, height=options.height, width=options.width, steps=options.steps, guided=model.guided)
    return space_for(FAMILIES[SMALL[name]].make())


def test_there_is_one_for_every_model_that_people_ask_for() -> None:
    assert {file.stem for file in SHIPPED} == set(DEMO_NAMES)
    assert {file.stem for file in OTHERS} == {*PUBLISHED, *SMALL}


@pytest.mark.parametrize("file", OTHERS, ids=lambda file: file.stem)
def test_of_other_models(file: Path, options_of: Callable[..., TuneRequest]) -> None:
    request = options_of(file, "--budget", "40%")
    options = request.options
    assert options.study_name == f"{file.stem}-40pct" and request.source.name not in DEMO_NAMES
    assert request.source.name in (getattr(PUBLISHED.get(file.stem), "source", request.source.name))
    assert options.prompts == general_prompts()
    # All pictures of different prompts.
    assert options.images <= len(split(general_prompts())[0])
    assert options.height == options.width == int(file.stem.rpartition("-")[2])
    assert options.steps and options.guidance_scale and isinstance(options.space, Mapping)

    space = space_of(file.stem, options)
    if file.stem in PUBLISHED:
        narrowed = space.within(options.space)
        low, high = next((knob.low, knob.high) for knob in narrowed.knobs if knob.name == "scale")
        scales = narrowed.scales  # type: ignore[attr-defined]
        assert scales[low] >= 3 / 8 and scales[high] == 1
    else:
        assert options.space.keys() <= {knob.name for knob in space.knobs}


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_of_shipped_models(
    file: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    few = ["--images", "8", "--held-out-images", "8", "--batch-size", "1", "--device", "cpu"]
    assert run(["tune", "--study", str(file), "--budget", "40%", *few, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "fewer steps" in said and "96 candidates" in said and "30.0 minutes" in said
    assert not any(tmp_path.iterdir())


def test_the_command_line_wins(options_of: Callable[..., TuneRequest]) -> None:
    (file,) = (file for file in FILES if file.stem == "sdxl-1024")
    options = options_of(file, "--images", "32", "--timeout", "5m", "--height", "768", "--study-name", "mine").options
    assert (options.images, options.timeout, options.height, options.study_name) == (32, 300, 768, "mine")
    assert (options.width, options.steps, options.batch_size) == (1024, 50, 4)
