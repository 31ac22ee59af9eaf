"""Random calls of pipelines as people set them up: what is done by hand comes out, or one sentence before any work."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from autotune.policy import ResolutionStage
from tests.conformance.real_calls import CUTOFFS, STEPS, Scenario, check
from tests.support.builders import FAMILIES
from tests.support.techniques import HANDOFFS

IP_ADAPTERS = ("sd", "sdxl", "sd-img2img")
# What it computes in single precision cannot be had in double.
NAMES = [name for name in FAMILIES if name != "generic"]


@st.composite
def scenarios(draw: st.DrawFn) -> Scenario:
    name = draw(st.sampled_from(NAMES))
    start = draw(st.integers(0, STEPS - 1))
    interval = draw(st.none() | st.just((start, draw(st.integers(start + 1, STEPS)))))
    events = ["policy", *draw(st.lists(st.sampled_from(["FreeU", "LoRA", "offload", "call"]), unique=True))]
    low = st.builds(
        ResolutionStage,
        scale=st.sampled_from([0.5, 0.75]),
        until_step=st.integers(1, STEPS - 1),
        handoff=st.sampled_from(HANDOFFS),
    )
    return Scenario(
        name=name,
        batch=draw(st.integers(1, 2)),
        guidance=draw(st.booleans()),
        units=tuple(draw(st.lists(st.floats(0, 0.999), min_size=1, max_size=2))),
        compute=frozenset(draw(st.sets(st.integers(1, STEPS - 1)))),
        interval=interval,
        low=draw(st.none() | low),
        cutoff=draw(st.none() | st.integers(0, STEPS - 1)) if name in CUTOFFS else None,
        adapters=draw(st.integers(0, 2)) if name in IP_ADAPTERS else 0,
        order=tuple(draw(st.permutations(events))),
        sibling=draw(st.sampled_from([None, False, True])),
        sibling_in_callback=draw(st.booleans()),
        rate=draw(st.integers(1, 3)),
    )


# An example takes a second: one that fails is small enough as it is.
_SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.generate,),
    suppress_health_check=list(HealthCheck),
)


# Many take half an hour.
MANY = pytest.param(300, marks=[pytest.mark.exhaustive, pytest.mark.timeout(2 * 3600)])


@pytest.mark.parametrize("examples", [6, MANY])
def test_random_calls(examples: int) -> None:
    @settings(_SETTINGS, max_examples=examples)
    @given(scenarios())
    def run(scenario: Scenario) -> None:
        check(scenario)

    run()
