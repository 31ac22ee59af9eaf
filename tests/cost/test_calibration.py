"""Corrections are found again in runs that were made with them."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.cost.latency import Parts
from autotune.cost.profile import Corrections
from autotune.cost.profile.calibration import UNCORRECTED, calibration_policies, fit_corrections
from autotune.pipelines.units import find_units
from autotune.plan import compile_plan
from tests.support.builders import FAMILIES

RUNS = [
    Parts(1, 8, 400.0, 0, 0),
    Parts(1, 4, 200.0, 0, 0),
    Parts(1, 8, 300.0, 0, 0),
    Parts(1, 8, 260.0, 0, 1),
    Parts(1, 8, 240.0, 0, 1),
    Parts(1, 8, 250.0, 40, 0),
    Parts(1, 8, 330.0, 400, 0),
    Parts(1, 8, 190.0, 400, 1),
]


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        Corrections,
        call_ms=st.floats(0, 10),
        step_ms=st.floats(0, 3),
        denoiser=st.floats(0.95, 1.1),
        hook_ms=st.floats(0, 0.05),
        handoff_ms=st.floats(0, 10),
    )
)
def test_exact_runs_are_predicted_within_a_percent(corrections: Corrections) -> None:
    measured = [run.milliseconds(corrections) for run in RUNS]
    fitted = fit_corrections(RUNS, measured)
    for run, milliseconds in zip(RUNS, measured, strict=True):
        assert run.milliseconds(fitted) == pytest.approx(milliseconds, rel=0.01)


def test_noise_does_not_run_away_with_the_corrections() -> None:
    draw = random.Random(0)
    measured = [run.denoiser_ms * draw.gauss(1, 0.03) for run in RUNS]
    fitted = fit_corrections(RUNS, measured)
    assert fitted.denoiser == pytest.approx(1, abs=0.06)
    assert fitted.call_ms < 20 and fitted.step_ms < 3 and fitted.hook_ms < 0.1 and fitted.handoff_ms < 20


def test_runs_without_more_than_the_denoiser_need_no_correction() -> None:
    fitted = fit_corrections(RUNS, [run.denoiser_ms for run in RUNS])
    assert fitted.model_dump() == pytest.approx(UNCORRECTED.model_dump(), abs=1e-3)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_can_run_the_calibration_policies(name: str) -> None:
    structure = find_units(getattr(FAMILIES[name].make(), FAMILIES[name].denoiser))
    side = 4 * structure.size_multiple
    policies = calibration_policies(structure, (Fraction(1, 2), Fraction(1)), FAMILIES[name].guided)
    plans = [compile_plan(policy, structure, side, side, guided=FAMILIES[name].guided) for policy in policies]
    assert len({policy.key for policy in policies}) == len(policies) >= 6
    assert any(step.handoff for plan in plans for step in plan.steps)
    assert any(step.taken for plan in plans for step in plan.steps)


def test_where_there_is_one_size_no_calibration_policy_has_another() -> None:
    structure = find_units(FAMILIES["sd"].make().unet)
    assert not any(policy.resolution for policy in calibration_policies(structure, (Fraction(1),), True))
