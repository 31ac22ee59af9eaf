"""Checking without a denoiser whether a pipeline runs under a policy."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from autotune.core.errors import InputError, PolicyError
from autotune.policy import Policy, ResolutionStage, SchedulerChoice
from autotune.runtime import applied
from autotune.runtime.models import latents_of, recommended, text_length
from autotune.runtime.rehearsal import check_runs
from search_spaces.of_pipeline import solvers_for
from tests.support.builders import FAMILIES
from tests.support.watch import traces

BINNING = ["pixart-alpha", "pixart-sigma", "pixart-alpha-1024", "sana", "hunyuandit"]


@cache
def pipeline(name: str) -> Any:
    return FAMILIES[name].make()


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in BINNING])
def test_the_own_solver_is_rehearsed_at_the_native_size(name: str) -> None:
    pipe = pipeline(name)
    before = traces(pipe)
    check_runs(pipe, Policy(steps=3))
    assert traces(pipe) == before


@pytest.mark.parametrize("name", ["flux", "sd", "dit"])
def test_neither_weights_nor_values_are_needed(name: str) -> None:
    pipe = FAMILIES[name].make()
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            component.to("meta")
    assert len(solvers_for(pipe, 3)) == 3
    for solver in solvers_for(pipe, 3):
        check_runs(pipe, Policy(steps=3, **solver.fields(4, 3)), *FAMILIES[name].size)


def test_a_size_that_a_policy_does_not_fit_is_refused() -> None:
    policy = Policy(steps=3, resolution=(ResolutionStage(scale=0.5, until_step=1),))
    check_runs(pipeline("sd"), policy, 32, 64)
    with pytest.raises(InputError, match="scale 0.5 gives latents"):
        check_runs(pipeline("sd"), policy, 32, 40)


def test_steps_that_end_in_values_that_are_not_finite_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Any, output: Any, timestep: Any, sample: Any, **_: Any) -> Any:
        return (sample / 0,)

    monkeypatch.setattr(diffusers.UniPCMultistepScheduler, "step", broken)
    # It takes nothing by name, which SD3 does not pass either.
    policy = Policy(steps=3, scheduler=SchedulerChoice(name="UniPCMultistepScheduler"))
    with pytest.raises(PolicyError, match="StableDiffusion3Pipeline cannot run under UniPCMultistepScheduler here"):
        check_runs(pipeline("sd3"), policy)


def test_a_step_that_fails_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        assert False, "of no use"  # noqa: B011, PT015

    monkeypatch.setattr(diffusers.DDIMScheduler, "step", broken)
    with pytest.raises(PolicyError, match=r"DDIMScheduler cannot run the policy's steps or settings \(of no use"):
        check_runs(pipeline("ddim"), Policy(steps=3))


def test_a_pipeline_under_a_policy_is_refused() -> None:
    with applied(pipeline("sd"), Policy(steps=2)), pytest.raises(InputError, match="already runs under a policy"):
        check_runs(pipeline("sd"), Policy(steps=3))


# Pipelines that move sizes to the nearest in a list


def saved(name: str, folder: Path, call: dict[str, Any] | None = None) -> Any:
    """The pipeline as one that was loaded from a folder."""
    pipe = copy.copy(pipeline(name))
    if call is not None:
        (folder / "postdiff.json").write_text(json.dumps({"call": call}))
    pipe._internal_dict = type(pipe.config)({**pipe.config, "_name_or_path": str(folder)})
    return pipe


@pytest.mark.parametrize("name", BINNING)
def test_a_list_of_other_models_sizes_is_refused_unless_the_call_says_not_to_use_it(name: str, tmp_path: Path) -> None:
    plain = saved(name, tmp_path)
    with pytest.raises(InputError, match="make pictures of the nearest size .*: pass use_resolution_binning=False"):
        check_runs(plain, Policy(steps=3), *FAMILIES[name].size)
    check_runs(plain, Policy(steps=3), *FAMILIES[name].size, call={"use_resolution_binning": False})
    told = saved(name, tmp_path, dict(FAMILIES[name].extra))
    check_runs(told, Policy(steps=3), *FAMILIES[name].size)


@pytest.mark.parametrize("name", BINNING)
def test_a_whole_call_works_as_a_folder_recommends(name: str, tmp_path: Path) -> None:
    tiny = FAMILIES[name]
    pipe = saved(name, tmp_path, dict(tiny.extra))
    arguments = tiny.arguments(steps=3, output_type="pt")
    call = {key: value for key, value in arguments.items() if key not in tiny.extra} | recommended(pipe).call
    made = pipe(**call).images
    assert made.shape[-2:] == tiny.size
    size = latents_of(pipe, *tiny.size)
    assert size == latents_of(pipe, *tiny.size, call=tiny.extra)
    assert (size.height, size.width) == (16, 16)
    assert text_length(pipe) == tiny.text_tokens == text_length(pipe, call=tiny.extra)


def test_a_list_of_the_models_own_sizes_is_used() -> None:
    pipe = FAMILIES["pixart-alpha"].make()
    pipe.transformer.register_to_config(sample_size=128)
    pipe.vae_scale_factor = 8
    check_runs(pipe, Policy(steps=3), 1000, 1000)
    assert latents_of(pipe, 1000, 1000).height == 128
