"""Whatever happens to a policy on its way: it loads as a policy equal under round trip, or is refused in one line."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from autotune import load_policy
from autotune.core.errors import InputError, PolicyError
from autotune.core.records import MAX_MESSAGE
from autotune.policy import (
    MAX_ID,
    CacheRule,
    Guidance,
    Policy,
    ResolutionStage,
    SchedulerChoice,
)
from autotune.runtime import apply_policy, describe_model, remove_policy
from autotune.runtime.runtime import ATTRIBUTE
from tests.support.builders import FAMILIES
from tests.support.strategies import EXAMPLES, JUNK, mutated_documents, mutated_texts, policies
from tests.support.watch import traces

SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.large_base_example]


def several(examples: int, all_of_them: int) -> pytest.MarkDecorator:
    """Parametrizes the number of examples; under the mark there are more."""
    return pytest.mark.parametrize("examples", [examples, pytest.param(all_of_them, marks=pytest.mark.exhaustive)])


@several(500, 2000)
def test_mutated_documents_load_or_are_refused(examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=SUPPRESSED)
    @given(document=mutated_documents())
    def check(document: dict[str, Any]) -> None:
        _loads_or_is_refused(document)

    check()


@several(500, 2000)
def test_mutated_files_load_or_are_refused(examples: int, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"

    @settings(max_examples=examples, deadline=None, suppress_health_check=SUPPRESSED)
    @given(data=mutated_texts())
    def check(data: bytes) -> None:
        path.write_bytes(data)
        _loads_or_is_refused(path)

    check()


@settings(deadline=None)
@given(policy=policies(everything=True))
def test_valid_policies_load(policy: Policy) -> None:
    assert _loads_or_is_refused(policy.to_dict()) == policy


@pytest.mark.parametrize("policy", EXAMPLES, ids=lambda policy: policy.id)
def test_the_unmutated_examples_load(policy: Policy) -> None:
    assert _loads_or_is_refused(policy.to_dict()) == policy


@pytest.mark.parametrize("key", [*Policy.model_fields, "unknown"])
def test_any_junk_under_any_key_loads_or_is_refused(key: str) -> None:
    for junk in JUNK:
        _loads_or_is_refused({"format": "postdiff-policy", "version": 1, "steps": 3, key: junk})


@settings(max_examples=200, deadline=None)
@given(source=st.text(max_size=300) | st.sampled_from(["x" * 5000, "a/" * 3000, "\0", "\ud800", "", ".", "a\nb.json"]))
def test_any_text_as_a_path_is_refused(source: str) -> None:
    _loads_or_is_refused(source)


@pytest.mark.parametrize("source", [None, 3, 3.5, b"policy.json", [], ["policy.json"], object()])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(PolicyError, match="path, a dict or a Hub id"):
        load_policy(source)


def _loads_or_is_refused(source: Any) -> Policy | None:
    try:
        policy = load_policy(source)
    except PolicyError as error:
        message = str(error)
        assert message and len(message) <= MAX_MESSAGE
        assert message.isprintable()
        return None
    assert load_policy(policy.to_dict()) == policy
    # JSON has one kind of number list, and what was a tuple comes back as a list.
    again = load_policy(json.loads(json.dumps(policy.to_dict(), allow_nan=False)))
    assert again == policy
    assert again.key == policy.key
    assert re.fullmatch(r"[A-Za-z0-9_.@+~-]+", policy.id) and len(policy.id) <= MAX_ID
    return policy


BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULERS = {
    "DDIMScheduler": DDIMScheduler(**BETAS, steps_offset=1, clip_sample=False),
    # Takes explicit timesteps and sigmas.
    "EulerDiscreteScheduler": EulerDiscreteScheduler(**BETAS),
}


@cache
def _pipeline() -> Any:
    return FAMILIES["sd"].make()


def _every(interval: int, *units: str, **fields: Any) -> CacheRule:
    return CacheRule(units=units, compute_steps=tuple(range(0, 6, interval)), **fields)


def _applicable(name: str) -> tuple[Policy, ...]:
    """Policies that fit the tiny pipeline under the scheduler ``name``; what is refused then is the mutation."""
    pipe = _pipeline()
    pipe.scheduler = SCHEDULERS[name]
    stages = (
        ResolutionStage(scale=0.25, until_step=1),
        ResolutionStage(scale=0.5, until_step=3, handoff="noise_matched"),
    )
    solver = SchedulerChoice(
        name="DPMSolverMultistepScheduler",
        config={
            "use_karras_sigmas": False,
            "solver_order": 3,
            "lambda_min_clipped": -5.1,
            "final_sigmas_type": "zero",
            "algorithm_type": "dpmsolver++",
            "thresholding": False,
        },
    )
    layer = "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
    policies = [
        Policy(steps=6, model=describe_model(pipe, 50), cache=(_every(2, "up_blocks.1"),)),
        Policy(
            steps=6,
            resolution=stages,
            timesteps="trailing" if name == "DDIMScheduler" else "exponential",
            guidance=Guidance(start_step=1, stop_step=5, after="cross_attention"),
            cache=(_every(3, "down_blocks.1.resnets.1", "mid_block.attentions.*", mode="residual"),),
        ),
        Policy(
            steps=6,
            scheduler=solver,
            timesteps="karras",
            resolution=stages[1:],
            guidance=Guidance(stop_step=4),
            cache=(_every(2, "up_blocks.0", layer, mode="forecast", order=2), _every(3, "**.attn1")),
        ),
        Policy(
            steps=6, scheduler=SchedulerChoice(name="HeunDiscreteScheduler"), timesteps=(999, 800, 600, 400, 200, 1)
        ),
    ]
    if name == "EulerDiscreteScheduler":
        policies += [
            Policy(steps=6, timesteps=(999, 800, 600, 400, 200, 0), cache=(_every(2, "up_blocks.1"),)),
            Policy(steps=6, sigmas=(14.6, 7.0, 3.0, 1.5, 0.5, 0.03), resolution=stages),
        ]
    return tuple(policies)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_unmutated_policies_apply(name: str) -> None:
    for policy in _applicable(name):
        assert _applies_whole_or_not_at_all(name, policy)


@pytest.mark.parametrize("name", SCHEDULERS)
@several(300, 1100)
def test_mutated_policies_apply_whole_or_not_at_all(name: str, examples: int) -> None:
    results: list[bool] = []
    unmutated = _applicable(name)

    @settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=SUPPRESSED,
        database=None,
        # To explain failures, hypothesis traces every line, which takes longer than all the rest.
        phases=set(Phase) - {Phase.explain},
    )
    @given(document=_recombined_documents(unmutated) | mutated_documents(unmutated))
    def check(document: dict[str, Any]) -> None:
        try:
            policy = load_policy(document)
        except PolicyError:
            return
        results.append(_applies_whole_or_not_at_all(name, policy))

    check()
    # Otherwise one of the two would hardly be tested.
    least = examples // 22
    assert sum(results) >= least and len(results) - sum(results) >= least


# What a policy may well say, whether or not it goes with the rest of it and with the pipeline.
PLAUSIBLE: dict[str, tuple[Any, ...]] = {
    "steps": (5, 6, 7, 60, 1000),
    "scale": (0.25, 0.3, 0.5, 0.75, 0.99),
    "until_step": (1, 2, 5),
    "handoff": ("renoise", "noise_matched"),
    "start_step": (0, 1, 3),
    "stop_step": (1, 4, 6),
    "after": ("nothing", "cross_attention"),
    "mode": ("reuse", "residual"),
    "units": (
        ["up_blocks.1"],
        ["mid_block"],
        ["up_blocks.0-2"],
        ["down_blocks.0-1"],
        ["**.ff"],
        ["**.resnets.*"],
        ["down_blocks.1.resnets.0"],
        ["up_blocks.9"],
        ["*"],
        ["**"],
    ),
    "timesteps": (
        "default",
        "leading",
        "linspace",
        "trailing",
        "karras",
        "exponential",
        "beta",
        [900, 700, 500, 300, 50, 3],
    ),
    "sigmas": (None, [1e308, 14.0, 3.0, 1.0, 0.5, 0.1], [14.0, 7.0, 3.0, 1.0, 0.5, 1e-300]),
    "name": (
        "DDIMScheduler",
        "DDPMScheduler",
        "PNDMScheduler",
        "EulerDiscreteScheduler",
        "LCMScheduler",
        "UniPCMultistepScheduler",
        "DPMSolverSinglestepScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "IPNDMScheduler",
    ),
    "algorithm_type": ("dpmsolver", "sde-dpmsolver++", "deis", 3),
    "final_sigmas_type": ("sigma_min", None, 0.5),
    "solver_order": (1, 2, 17, 2.5),
    "use_karras_sigmas": (True, None, "yes"),
    "lambda_min_clipped": (1e300, None, "low"),
    "thresholding": (True,),
}


@st.composite
def _recombined_documents(draw: st.DrawFn, examples: tuple[Policy, ...]) -> dict[str, Any]:
    """Documents of ``examples`` with one to three values that others have in their place."""
    random = draw(st.randoms(use_true_random=True))
    document = random.choice(examples).to_dict()
    for _ in range(random.randint(1, 3)):
        holders = [document, *_objects(document)]
        holder, key = random.choice([(holder, key) for holder in holders for key in holder if key in PLAUSIBLE])
        holder[key] = random.choice(PLAUSIBLE[key])
    return document


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects inside a JSON value."""
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [found for part in parts for found in ([part] if isinstance(part, dict) else []) + _objects(part)]


def _applies_whole_or_not_at_all(name: str, policy: Policy) -> bool:
    """Whether ``policy`` could be applied; either way the pipeline's instances end as they were."""
    pipe, scheduler = _pipeline(), SCHEDULERS[name]
    pipe.scheduler = scheduler
    before, settings_before = traces(pipe), dict(scheduler.config)
    assert not before["hooks"] and not before["pipe"] and not before["scheduler"][1]
    try:
        apply_policy(pipe, policy)
    except InputError as error:
        message = str(error)
        assert message.isprintable() and len(message) < MAX_MESSAGE + 400
        assert not hasattr(pipe, ATTRIBUTE)
        applied = False
    else:
        assert traces(pipe) != before
        remove_policy(pipe)
        applied = True
    assert traces(pipe) == before
    assert pipe.scheduler is scheduler
    assert dict(scheduler.config) == settings_before
    return applied
