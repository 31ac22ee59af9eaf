"""Guidance branches stacked in one batch: taking one of them, and standing one in for both."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.utils import BaseOutput
from torch import Tensor


def half(value: Any, rows: int, *, first: bool) -> Any:
    """Of ``rows`` stacked rows the first or the last half, in tensors and lists at any depth; the rest as it is."""
    part = slice(0, rows // 2) if first else slice(rows // 2, rows)
    if isinstance(value, Tensor):
        return value[part] if value.ndim and value.shape[0] == rows else value
    if isinstance(value, list) and len(value) == rows:
        return value[part]
    if isinstance(value, (list, tuple)):
        return type(value)(half(item, rows, first=first) for item in value)
    if isinstance(value, dict):
        return {key: half(item, rows, first=first) for key, item in value.items()}
    return value


def twice(output: Any) -> Any:
    """The denoiser's output for one branch, in place of both.

    Unconditional + scale * (conditional - unconditional) is then exactly the conditional one.
    """
    if isinstance(output, Tensor):
        return torch.cat([output, output])
    if isinstance(output, list):
        return output + output
    if isinstance(output, tuple):
        return tuple(twice(item) for item in output)
    if isinstance(output, BaseOutput):
        return type(output)(**{key: twice(item) for key, item in output.items()})
    return output


def row_count(sample: Any) -> int:
    """Rows of a denoiser's sample: a tensor, or a list with one tensor a row."""
    return len(sample) if isinstance(sample, list) else int(sample.shape[0])
