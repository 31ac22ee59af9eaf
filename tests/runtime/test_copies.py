"""Pipelines under policies that are copied, saved, and run side by side."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from autotune.policy import Policy, SchedulerChoice
from autotune.runtime import apply_policy, remove_policy
from autotune.runtime.apply import session_of
from tests.support.ecosystem import CASES, NAMES, denoiser_of, expected, make, plain, policy_of, run
from tests.support.techniques import STEPS

each_pipeline = pytest.mark.parametrize("name", NAMES)
OTHER_SOLVER = {
    "sd": "DPMSolverMultistepScheduler",
    "pixart-alpha": "DDIMScheduler",
    "flux": "UniPCMultistepScheduler",
}


def other_solver(name: str) -> Policy:
    return Policy(steps=STEPS, scheduler=SchedulerChoice(name=OTHER_SOLVER[name]))


@each_pipeline
def test_a_copy_runs_under_the_policy_on_its_own(name: str) -> None:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe))
    run(name, pipe)
    clone = copy.deepcopy(pipe)
    assert denoiser_of(name, clone) is not denoiser_of(name, pipe)
    assert torch.equal(run(name, clone), expected(name))
    remove_policy(pipe)
    assert torch.equal(run(name, clone), expected(name))
    assert torch.equal(run(name, pipe), plain(name))
    apply_policy(pipe, policy_of(name, pipe))
    remove_policy(clone)
    assert torch.equal(run(name, clone), plain(name))
    assert torch.equal(run(name, pipe), expected(name))


@each_pipeline
def test_a_copy_has_weights_of_its_own(name: str) -> None:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe))
    clone = copy.deepcopy(pipe)
    with torch.no_grad():
        for parameter in denoiser_of(name, pipe).parameters():
            parameter.zero_()
    assert torch.equal(run(name, clone), expected(name))


@each_pipeline
def test_a_copy_after_the_policy_is_a_plain_pipeline(name: str) -> None:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe))
    run(name, pipe)
    remove_policy(pipe)
    clone = copy.deepcopy(pipe)
    assert session_of(clone) is None
    assert torch.equal(run(name, clone), plain(name))
    apply_policy(clone, policy_of(name, clone))
    assert torch.equal(run(name, clone), expected(name))
    assert torch.equal(run(name, pipe), plain(name))


def test_a_copy_under_another_solver() -> None:
    pipe = make("sd")
    apply_policy(pipe, other_solver("sd"))
    want = run("sd", pipe)
    clone = copy.deepcopy(pipe)
    assert torch.equal(run("sd", clone), want)
    remove_policy(clone)
    assert torch.equal(run("sd", clone), plain("sd"))
    assert torch.equal(run("sd", pipe), want)


@each_pipeline
@pytest.mark.parametrize("solver", ["own", "another"])
def test_saving_saves_the_plain_pipeline(name: str, solver: str, tmp_path: Path) -> None:
    pipe = make(name)
    apply_policy(pipe, policy_of(name, pipe) if solver == "own" else other_solver(name))
    before = run(name, pipe)
    pipe.save_pretrained(tmp_path / "policy")
    assert torch.equal(run(name, pipe), before)
    make(name).save_pretrained(tmp_path / "plain")

    # Loaded weights lie elsewhere in memory, which can move a last digit: both are loaded.
    again, expected = (type(pipe).from_pretrained(tmp_path / kind) for kind in ("policy", "plain"))
    for loaded in (again, expected):
        loaded.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is type(expected.scheduler)
    assert torch.equal(run(name, again), run(name, expected))
    assert not any("postdiff" in file.read_text() for file in tmp_path.rglob("*.json"))


@pytest.mark.parametrize("cases", [CASES[:2], CASES[2:]])
def test_two_pipelines_in_two_threads(cases: tuple[str, str]) -> None:
    names = ("sd", "flux")
    pipes: list[Any] = []
    for name, case in zip(names, cases, strict=True):
        pipes.append(make(name))
        apply_policy(pipes[-1], policy_of(name, pipes[-1], case))
    with ThreadPoolExecutor(2) as pool:
        for _ in range(2):
            results = list(pool.map(run, names, pipes))
            for name, case, result in zip(names, cases, results, strict=True):
                assert torch.equal(result, expected(name, case))


def test_two_pipelines_of_one_class_in_two_threads() -> None:
    pipes = [make("sd"), make("sd")]
    for pipe, case in zip(pipes, CASES, strict=False):
        apply_policy(pipe, policy_of("sd", pipe, case))
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda pipe: run("sd", pipe), pipes))
    for case, result in zip(CASES, results, strict=False):
        assert torch.equal(result, expected("sd", case))
