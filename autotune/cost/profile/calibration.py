"""What a pipeline call takes besides its denoiser, told apart by a few whole calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from fractions import Fraction
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear

from autotune.cost.hardware_profile import Corrections, rounded
from autotune.cost.latency import Parts, factors
from autotune.plan.structure import Structure
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage

CALIBRATION_STEPS = 8
UNCORRECTED = Corrections(call_ms=0, step_ms=0, denoiser=1, hook_ms=0, handoff_ms=0)
# Expected of a median of a few calls.
_NOISE = 0.02
# In the order of the fields of Parts.
_CORRECTIONS = ("call_ms", "step_ms", "denoiser", "hook_ms", "handoff_ms")


def calibration_policies(structure: Structure, scales: Sequence[Fraction], guided: bool) -> tuple[Policy, ...]:
    """Calls that tell apart what a pipeline does besides its denoiser; few steps, for time is linear in them."""
    steps = CALIBRATION_STEPS
    half = steps // 2
    names = [block.name for block in structure.blocks] or [unit.name for unit in structure.units if unit.streams]
    deep = [names[len(names) * 3 // 4]]
    attention = [unit.name for unit in structure.units if unit.kind == "self-attention"][:64] or deep

    def every(interval: int, units: Sequence[str], order: int | None = None) -> dict[str, Any]:
        mode: Any = "forecast" if order else "reuse"
        compute = tuple(range(0, steps, interval))
        return {"cache": (CacheRule(units=tuple(units), mode=mode, order=order, compute_steps=compute),)}

    def low(handoff: Any, until: int) -> dict[str, Any]:
        smaller = [scale for scale in scales if scale < 1]
        if not smaller:
            return {}
        scale = min(smaller, key=lambda scale: abs(scale - Fraction(1, 2)))
        return {"resolution": (ResolutionStage(scale=float(scale), until_step=until, handoff=handoff),)}

    def guide(start: int) -> dict[str, Any]:
        return {"guidance": Guidance(start_step=start, stop_step=half)} if guided else {}

    found = (
        Policy(steps=steps),
        Policy(steps=half),
        Policy(steps=steps, **guide(1)),
        Policy(steps=steps, **low("renoise", half)),
        Policy(steps=steps, **low("noise_matched", half // 2), **guide(0)),
        Policy(steps=steps, **every(2, deep)),
        Policy(steps=steps, **every(3, attention, order=1)),
        Policy(steps=steps, **low("renoise", half), **every(2, attention), **guide(0)),
    )
    return tuple({policy.key: policy for policy in found}.values())


def fit_corrections(parts: Sequence[Parts], measured: Sequence[float]) -> Corrections:
    """Corrections with which ``parts`` take what was measured, in milliseconds without text encoder and decoder.

    Least squares of relative errors, none negative, drawn to what is expected by as much as a few percent of a
    call: there are few more runs than corrections, and all runs are noisy.
    """
    design = np.array([astuple(part) for part in parts])
    target = np.array(measured)
    shortest = target.min()
    expected = np.array(factors(UNCORRECTED))
    # How far each correction may lie from what is expected, as a standard deviation.
    spread = np.array([0.1 * shortest, 0.1 * shortest / CALIBRATION_STEPS, 0.2, 0.05, 0.1 * shortest])
    rows = np.vstack([design / (_NOISE * target)[:, None], np.diag(1 / spread)])
    aims = np.concatenate([np.full(len(target), 1 / _NOISE), expected / spread])
    found = lsq_linear(rows, aims, bounds=(0, np.inf)).x
    return Corrections(**dict(zip(_CORRECTIONS, map(rounded, found), strict=True)))
