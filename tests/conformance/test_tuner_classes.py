"""Which classes of pipelines are tuned: all that are listed, and others that have what it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import autotune
from autotune.cli.supported import supported_pipelines
from autotune.core.errors import InputError
from autotune.report.run import read_run
from autotune.report.snippet import snippet
from autotune.workflows.tune import TuneResult
from search_spaces import space_for
from search_spaces.denoiser import DenoiserSpace
from tests.conformance.deployment import deployed
from tests.conformance.tuner import (
    EXAMPLES,
    FROM_FOLDERS,
    FROM_PYTHON,
    STEPS,
    Run,
    command_line,
    few,
    in_brief,
    search,
)
from tests.support.builders import FAMILIES, GenericPipeline, GenericTransformer
from tests.support.folders import SCORER, brought, prompts


def test_all_listed_classes_are_tuned_here_or_said_not_to_be() -> None:
    listed = {entry.pipeline: entry for entry in supported_pipelines() if entry.pipeline != "any other"}
    tuned = {name for name, entry in listed.items() if entry.tuned}
    assert tuned == {FAMILIES[name].pipeline for name in (*FROM_FOLDERS, *FROM_PYTHON)}
    assert listed.keys() - tuned == {FAMILIES["wan"].pipeline}
    assert "not tuned: makes videos" in listed["WanPipeline"].notes


def test_videos_are_refused_in_one_sentence(tmp_path: Path) -> None:
    said = command_line(*search(brought("wan"), tmp_path / "run", "--budget", "60%"))
    assert said.code == 2
    assert said.errors == (
        "postdiff: WanPipeline makes videos, which nothing here judges yet: policies for it are priced and run, but"
        " made by hand\n"
    )
    assert not (tmp_path / "run").exists()


# What is not saved with a pipeline: Python tunes it


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.exhaustive] if name in ("sd-ip-adapter", "kandinsky5-img2img") else [])
        for name in FROM_PYTHON
    ],
)
def test_pipelines_that_are_not_saved_are_tuned(name: str, tmp_path: Path) -> None:
    """Of several adapters and of one, and of sizes of its own: searched, judged, exported, reported, deployed."""
    model, pipe = brought(name), FAMILIES[name].make()
    height, width = model.size
    space = space_for(pipe, height=height, width=width, steps=STEPS)
    assert isinstance(space, DenoiserSpace)
    with in_brief():
        result = autotune.tune(
            pipe, "60%", inputs=model.rows, height=height, width=width, guidance_scale=model.family.scale[1],
            scorer=SCORER, steps=STEPS, images=EXAMPLES, held_out_images=EXAMPLES, weight_clip=0, trials=3,
            space=few(space), run_dir=tmp_path, quiet=True,
        )  # fmt: skip
    run = Run(tmp_path)
    assert run.failures == [] and len(run.complete) == 3
    for policy in {policy.key: policy for policy in (result.policy, run.finalists[-1])}.values():
        assert torch.equal(deployed(model, policy, FAMILIES[name].make()), run.judged(policy))
    said = command_line("report", str(tmp_path), "--json")
    assert said.code == 0, said.errors
    assert json.loads(said.output)["finished"]
    code = snippet(read_run(tmp_path))
    assert code is not None and code.count("load_image(") == FAMILIES[name].ip_adapters + len(FAMILIES[name].pictures)


# A class that nobody listed


def tune(pipe: Any, run_dir: Path) -> TuneResult:
    return autotune.tune(
        pipe, "60%", prompts=prompts(), scorer=SCORER, steps=STEPS, images=EXAMPLES, held_out_images=EXAMPLES,
        weight_clip=0, trials=3, run_dir=run_dir, quiet=True,
    )  # fmt: skip


def test_it_is_tuned(tmp_path: Path) -> None:
    with in_brief():
        result = tune(FAMILIES["generic"].make(), tmp_path)
    run = Run(tmp_path)
    assert run.failures == []
    assert len(run.complete) >= 3
    pictures = deployed(brought("generic"), result.policy, FAMILIES["generic"].make())
    assert torch.equal(pictures, run.judged(result.policy))


class KeepsLatents(GenericPipeline):
    def decode(self, latents: Tensor) -> Tensor:
        return latents


class ReturnsATuple(GenericPipeline):
    def __call__(  # type: ignore[override]
        self, prompt: Any, num_inference_steps: int = 4, generator: Any = None, output_type: str = "pt"
    ) -> Any:
        return (torch.zeros(len(prompt), 3, 8, 8),)


class TakesNoSeed(GenericPipeline):
    def __call__(  # type: ignore[override]
        self, prompt: Any, num_inference_steps: int = 4, output_type: str = "pt"
    ) -> Any:
        return SimpleNamespace(images=torch.zeros(len(prompt), 3, 8, 8))


class TakesNoPrompt(GenericPipeline):
    def __call__(  # type: ignore[override]
        self, caption: Any, num_inference_steps: int = 4, generator: Any = None
    ) -> Any:
        return SimpleNamespace(images=torch.zeros(len(caption), 3, 8, 8))


class DepthTransformer(GenericTransformer):
    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, depth: float, **rest: Any
    ) -> Any:
        return super().forward(hidden_states + depth, timestep, encoder_hidden_states, **rest)


def generic(pipeline: type = GenericPipeline, **changes: Any) -> Any:
    """A pipeline like the tests' own, but for its class or some of its parts."""
    return pipeline(**FAMILIES["generic"].make().components | changes)


def with_no_length() -> Any:
    pipe = generic()
    pipe.tokenizer.model_max_length = 10**30
    return pipe


def with_depth() -> Any:
    pipe = generic(transformer=DepthTransformer())
    pipe.transformer.register_forward_pre_hook(lambda _, args, given: (args, given | {"depth": 0.0}), with_kwargs=True)
    return pipe


LACKING: dict[str, tuple[Callable[[], Any], str]] = {
    "pictures": (lambda: generic(KeepsLatents), r"KeepsLatents returns Tensor \[1, 4, 16, 16\] where pictures"),
    "an output": (lambda: generic(ReturnsATuple), "ReturnsATuple returns no images where pictures"),
    "seeds": (lambda: generic(TakesNoSeed), "TakesNoSeed takes no generator, which its call needs"),
    "prompts": (lambda: generic(TakesNoPrompt), "TakesNoPrompt takes no prompt"),
    "shapes": (with_depth, "argument 'depth' has no shape that is known"),
    "a length of prompts": (with_no_length, "GenericPipeline does not say how many tokens it pads prompts to"),
    "a scheduler": (lambda: generic(scheduler=None), "GenericPipeline has no scheduler"),
    "a denoiser": (lambda: generic(transformer=None), "GenericPipeline has neither a unet nor a transformer"),
}


@pytest.mark.parametrize("lacking", LACKING)
def test_it_is_refused_where_it_lacks(lacking: str, tmp_path: Path) -> None:
    make, said = LACKING[lacking]
    with pytest.raises(InputError, match=said):
        tune(make(), tmp_path / "run")
    assert not (tmp_path / "run").exists()
