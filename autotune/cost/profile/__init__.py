"""How long a device takes: measured once and kept in a file, which :mod:`autotune.cost.latency` adds up over a plan."""

from __future__ import annotations

from autotune.cost.hardware_profile import (
    FORMAT,
    MAX_BYTES,
    VERSION,
    BatchTimes,
    CalibrationRun,
    CallTimes,
    Corrections,
    Device,
    Milliseconds,
    Positive,
    Profile,
    ProfiledModel,
    ProfileError,
    load_profile,
    rounded,
)

__all__ = [
    "BatchTimes",
    "CalibrationRun",
    "CallTimes",
    "Corrections",
    "Device",
    "FORMAT",
    "MAX_BYTES",
    "Milliseconds",
    "Positive",
    "Profile",
    "ProfileError",
    "ProfiledModel",
    "VERSION",
    "load_profile",
    "rounded",
]
