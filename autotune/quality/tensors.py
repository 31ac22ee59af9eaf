"""What every measure asks of its features, and the files that tensors are kept in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from autotune.core.errors import InputError

__all__ = ["check_finite", "check_judged", "double_rows", "write_tensors"]


def double_rows(features: Tensor, *, least: int = 2) -> Tensor:
    """Features (N, D) in float64 on the CPU, where the distances are calculated.

    Raises:
        ValueError: If they are no matrix, of fewer than ``least`` rows, or a value is not finite.
    """
    if features.ndim != 2 or len(features) < least:
        raise ValueError(f"Expected features of shape (N, D) with N >= {least}, not {tuple(features.shape)}.")
    check_finite(features, "features")
    return features.detach().cpu().double()


def check_finite(values: Tensor, name: str) -> None:
    """Refuse NaN and infinity, which would otherwise turn up far from where they arose."""
    bad = int((~values.isfinite()).sum())
    if bad:
        raise ValueError(f"{bad} of {values.numel()} values of the {name} are not finite (NaN or infinity).")


def check_judged(values: Tensor, judge: str) -> Tensor:
    """What a judge said of N pictures or texts, (N,) or (N, D), if all of it are numbers to reckon with.

    Raises:
        InputError: Some are NaN or infinite.
    """
    bad = int((~values.isfinite()).reshape(len(values), -1).any(1).sum())
    if bad:
        raise InputError(
            f"judge {judge}: what it says of {bad} of {len(values)} inputs is not finite (NaN or infinity), so its "
            "weights are damaged; fetch them again, or leave it out"
        )
    return values


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; whoever reads ``path`` meanwhile sees the old file or the new one."""
    from safetensors.torch import save

    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=dict(metadata)))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
