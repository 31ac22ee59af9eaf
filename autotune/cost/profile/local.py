"""The profile of this machine, measured when it is first needed and kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.core.cache_folder import cache_file, keep
from autotune.cost.hardware_profile import VERSION, Profile, ProfileError, load_profile
from autotune.cost.pricing import Pricer
from autotune.cost.profile.environment import describe_device, versions
from autotune.cost.profile.measure import OnProgress, measure_profile


def local_profile(
    pipe: Any,
    pricer: Pricer,
    batches: Sequence[int] = (1,),
    *,
    scales: Sequence[float] | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[Profile, Path]:
    """The profile of ``pipe`` on its device as ``pricer`` prices it, and the file it is kept in.

    One that was measured before serves again, unless device, precision, model, sizes or a release
    of torch or diffusers differs. To have it measured again, delete the file.

    Args:
        pipe: The pipeline.
        pricer: Of its pictures.
        batches: Pictures in a call, each profiled on its own.
        scales: See :func:`autotune.cost.profile.measure.measure_profile`.
        on_progress: Likewise.
    """
    device, dtype = describe_device(pipe.device), str(pipe.dtype)
    # Clocks change by the second.
    hardware = device.model_dump(exclude={"clocks"})
    subject = pricer.subject.model_dump()
    asked = () if scales is None else (list(scales),)
    path = cache_file("profiles", VERSION, hardware, dtype, versions(), subject, sorted(set(batches)), *asked)
    if path.is_file():
        try:
            return load_profile(path), path
        except ProfileError:
            pass  # Damaged: measured again.
    profile = measure_profile(
        pipe,
        height=pricer.subject.height,
        width=pricer.subject.width,
        frames=pricer.frames,
        guided=pricer.guided,
        batches=batches,
        scales=scales,
        on_progress=on_progress,
    )
    keep(path, profile.to_text())
    return profile, path
