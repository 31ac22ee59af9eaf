"""Stock pipelines that nobody tested are refused, in one sentence and before any work."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import diffusers
import pytest
import torch

import autotune
from autotune.core.errors import InputError
from autotune.pipelines.families import check_tested
from autotune.policy import Policy
from tests.conformance.tuner import command_line
from tests.support.builders import FAMILIES
from tests.support.folders import SCORER

SENTENCE = (
    "StableDiffusionPAGImg2ImgPipeline is not among the tested pipelines, so it is not known how it batches guidance"
    " and what it passes to its denoiser and scheduler: use one that `postdiff models` lists, or try a policy of your"
    " own with apply_policy(..., strict=False) and check its pictures"
)


def unlisted() -> Any:
    pipe = diffusers.StableDiffusionPAGImg2ImgPipeline(
        **FAMILIES["sd"].make().components, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def of_class(cls: type) -> Any:
    return cls.__new__(cls)


def test_an_unlisted_pipeline_is_refused_and_left_alone() -> None:
    pipe = unlisted()
    before = dict(vars(pipe))
    with pytest.raises(InputError) as error:
        autotune.apply_policy(pipe, Policy(steps=4))
    assert str(error.value) == SENTENCE
    assert vars(pipe) == before


def test_strict_false_takes_it() -> None:
    family = FAMILIES["sd-img2img"]
    pipe, call = unlisted(), family.arguments(batch=2) | {"pag_scale": 0.0}
    plain = family.run(pipe, **call)
    del call["num_inference_steps"]
    with autotune.applied(pipe, Policy(steps=4), strict=False):
        assert torch.equal(family.run(pipe, **call | {"generator": torch.Generator().manual_seed(0)}), plain)


def test_what_counts_is_the_class_that_defines_the_call() -> None:
    class Derived(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
        pass

    class DerivedFromUnlisted(diffusers.StableDiffusionPAGImg2ImgPipeline):  # type: ignore[misc]
        pass

    class Own(diffusers.StableDiffusionPAGImg2ImgPipeline):  # type: ignore[misc]
        def __call__(self) -> None: ...

    for tested in (Derived, Own, diffusers.StableDiffusionPipeline):
        check_tested(of_class(tested))
    check_tested(SimpleNamespace(unet=None))
    with pytest.raises(InputError, match="^StableDiffusionPAGImg2ImgPipeline is not among the tested pipelines"):
        check_tested(of_class(DerivedFromUnlisted))


def test_the_reason_is_said_where_it_is_known() -> None:
    said = "QwenImageEditPlusPipeline is not among the tested pipelines, for it takes one prompt a call"
    with pytest.raises(InputError, match=said):
        check_tested(of_class(diffusers.QwenImageEditPlusPipeline))


def test_pipelines_that_diffusers_downloads_are_refused() -> None:
    class Community(diffusers.StableDiffusionPipeline):  # type: ignore[misc]
        def __call__(self) -> None: ...

    Community.__module__ = "diffusers_modules.local.community"
    with pytest.raises(InputError, match="^Community is not among the tested pipelines"):
        check_tested(of_class(Community))


@pytest.mark.parametrize("command", ["tune", "compare"])
def test_commands_refuse_it_before_any_work(command: str, tmp_path: Path) -> None:
    unlisted().save_pretrained(tmp_path / "model")
    (tmp_path / "inputs.jsonl").write_text(json.dumps({"prompt": "a cat"}))
    Policy(steps=2).save(tmp_path / "policy.json")
    options = {"tune": ("--budget", "40%"), "compare": ("--policy", str(tmp_path / "policy.json"))}[command]
    rows = "--inputs", str(tmp_path / "inputs.jsonl"), "--scorer", str(SCORER)
    said = command_line(
        command, "--model", str(tmp_path / "model"), *options, *rows, "--out", str(tmp_path / "run"), "--device", "cpu"
    )
    assert (said.code, said.errors) == (2, f"postdiff: {SENTENCE}\n")
    assert not (tmp_path / "run").exists()
