"""Profiles made up for tests: times follow from FLOPs, so that predictions can be computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autotune.cost import Pricer, Profile
from autotune.cost.profile import BatchTimes, CallTimes, Corrections, Device
from autotune.plan import accepted_scales

GFLOPS_PER_MS = 1e-3
TEXT_ENCODER_MS, DECODER_MS, ALWAYS_MS = 2.0, 3.0, 0.25
CORRECTIONS = Corrections(call_ms=1.0, step_ms=0.5, denoiser=1.0, hook_ms=0.0, handoff_ms=2.0)


def synthetic_profile(pricer: Pricer, batches: Sequence[int] = (1,), **changes: Any) -> Profile:
    """A device with exactly ``GFLOPS_PER_MS``."""
    scales = accepted_scales(pricer.height, pricer.width, pricer.structure.size_multiple)

    def call(batch: int, height: int, width: int, branches: int) -> CallTimes:
        table = pricer.table(height, width)
        rows = batch * branches
        units = tuple(rows * work.flops / (GFLOPS_PER_MS * 1e9) for work in table.units)
        return CallTimes(
            height=height,
            width=width,
            branches=branches,
            forward_ms=ALWAYS_MS + sum(units),
            always_ms=ALWAYS_MS,
            units_ms=units,
            blocks_ms=(0.0,) * len(pricer.structure.blocks),
        )

    sizes = [(int(pricer.height * scale), int(pricer.width * scale)) for scale in scales]
    fields: dict[str, Any] = {
        "date": "2026-01-01T00:00:00+00:00",
        "device": Device(kind="cuda", name="a GPU", driver="1.0", cuda="12", clocks="SM 1 of 2 MHz"),
        "dtype": "float32",
        "compile": "none",
        "versions": {"torch": "2"},
        "model": pricer.subject,
        "launch_ms": 0.01,
        "batches": tuple(
            BatchTimes(
                batch=batch,
                text_encoder_ms=TEXT_ENCODER_MS,
                decoder_ms=DECODER_MS,
                calls=tuple(call(batch, *size, branches) for size in sizes for branches in (1, 2)),
                corrections=CORRECTIONS,
                calibration=(),
            )
            for batch in batches
        ),
    }
    return Profile(**(fields | changes))
