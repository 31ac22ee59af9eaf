from __future__ import annotations

from typing import Any

import pytest

from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage, SchedulerChoice
from autotune.policy.words import computes_everything, in_words, is_plain, steps_in_words

RATED = Policy(version=3, steps=8, guidance=Guidance(stop_step=8, compute_steps=(0, 2, 4, 6)))
SOLVER = SchedulerChoice(name="DDIMScheduler", config={})


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Policy(steps=8), "8 plain steps"),
        (Policy(steps=1), "1 plain step"),
        (Policy(steps=9, scheduler=SOLVER), "9 steps with another solver (s9@DDIM)"),
        (Policy(steps=2, sigmas=(1.0, 0.5)), "2 steps with other noise levels (s2-sigmas)"),
        (
            Policy(steps=9, scheduler=SOLVER, timesteps="trailing"),
            "9 steps with another solver and other noise levels (s9@DDIM-ts-trailing)",
        ),
    ],
)
def test_fewer_steps_are_named_by_what_is_not_the_pipelines_own(policy: Policy, said: str) -> None:
    assert computes_everything(policy) and steps_in_words(policy) == said
    assert is_plain(policy) == ("plain" in said)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(steps=8, guidance=Guidance(stop_step=5)),
        Policy(steps=8, guidance=Guidance(start_step=1, stop_step=8)),
        RATED,
        Policy(steps=8, resolution=(ResolutionStage(scale=0.5, until_step=3),)),
        Policy(steps=8, cache=(CacheRule(units=("mid_block",), compute_steps=(0, 4)),)),
    ],
)
def test_what_leaves_something_out_does_not_compute_everything(policy: Policy) -> None:
    assert not computes_everything(policy) and not is_plain(policy)


def test_what_leaves_nothing_out_computes_everything() -> None:
    rule = CacheRule(units=("mid_block",), compute_steps=(0, 1, 2))
    assert computes_everything(Policy(steps=3, guidance=Guidance(stop_step=3), cache=(rule,)))


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("forecast", "4 steps. Output of a computed in 2 steps, forecast (fitted weights) in the others."),
        ("residual", "4 steps. What is added by a computed in 2 steps, forecast (fitted weights) in the others."),
    ],
)
def test_fitted_weights_are_named(mode: Any, said: str) -> None:
    rule = CacheRule(units=("a",), mode=mode, compute_steps=(0, 2), weights=((0.9,), (1.4, -0.3)))
    assert in_words(Policy(version=3, steps=4, cache=(rule,))) == said


def test_how_strong_guidance_is_is_said() -> None:
    policy = Policy(version=4, steps=7, guidance=Guidance(start_step=3, stop_step=6, factor=1.5))
    assert in_words(policy) == "7 steps. Guidance in steps 4 to 6 only, 1.5 times as strong."


def test_guidance_as_a_rate_is_said() -> None:
    assert in_words(RATED) == (
        "8 steps. Guidance in steps 1 to 8 only, both branches computed in 4 of them, their last difference used again"
        " in the others."
    )
