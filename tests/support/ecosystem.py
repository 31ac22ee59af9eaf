"""Three tiny pipelines with their policies: a U-Net, a transformer, and one with its guidance branches in two calls."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import torch

from autotune.policy import CacheRule, Policy
from autotune.runtime import applied
from autotune.runtime.apply import session_of
from tests.support.builders import FAMILIES, TinyFamily
from tests.support.techniques import COMPUTE, RATE_AND_ALL, STEPS, structure_of, technique

NAMES = ("sd", "pixart-alpha", "flux")
CASES = ("everything", "reuse nearly all", "second-order forecast", RATE_AND_ALL)


def make(name: str) -> Any:
    return FAMILIES[name].make()


def denoiser_of(name: str, pipe: Any) -> Any:
    return getattr(pipe, FAMILIES[name].denoiser)


def policy_of(name: str, pipe: Any, case: str = "everything") -> Policy:
    policy = technique(case, FAMILIES[name], structure_of(FAMILIES[name], pipe))
    assert policy is not None
    return policy


def reuse(*units: str) -> Policy:
    return Policy(steps=STEPS, cache=(CacheRule(units=units, compute_steps=COMPUTE),))


def run(name: str, pipe: Any, **options: Any) -> torch.Tensor:
    """The latents; under a policy its steps, else as many."""
    family: TinyFamily = FAMILIES[name]
    arguments = family.arguments(steps=STEPS, **options)
    if session_of(pipe) is not None:
        del arguments["num_inference_steps"]
    return family.run(pipe, **arguments)


@cache
def plain(name: str, **options: Any) -> torch.Tensor:
    """The result of a pipeline to which nothing was done."""
    return run(name, make(name), **options)


@cache
def expected(name: str, case: str = "everything", **options: Any) -> torch.Tensor:
    """The result under a policy of a pipeline to which nothing else was done."""
    pipe = make(name)
    with applied(pipe, policy_of(name, pipe, case)):
        return run(name, pipe, **options)


def takes(pipe: Any, argument: str) -> bool:
    return argument in inspect.signature(pipe.__call__).parameters
