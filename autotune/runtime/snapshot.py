"""Exact copies of plain values and of a scheduler's state, and text that differs where values do."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

# Not state: how the scheduler was configured.
_CONFIG = "_internal_dict"


class NotPlainError(Exception):
    """A value that cannot be copied or told from others exactly."""


def canonical_form(value: Any, *, arrays: bool) -> str:
    """Text that differs where plain values do; generators are told by their state.

    Args:
        arrays: whether tensors and arrays are plain.

    Raises:
        NotPlainError: the value is or holds anything else.
    """
    if isinstance(value, list | tuple):
        return f"[{','.join(canonical_form(item, arrays=arrays) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{key!r}:{canonical_form(value[key], arrays=arrays)}' for key in sorted(value))}}}"
    if isinstance(value, torch.Generator):
        return f"generator {value.device} {digest(value.get_state().numpy().tobytes())}"
    if arrays and isinstance(value, Tensor):
        content = value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype}{tuple(value.shape)} {digest(content)}"
    if arrays and isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype}{value.shape} {digest(value.tobytes())}"
    if value is None or isinstance(value, bool | int | float | str | torch.device | torch.dtype):
        return repr(value)
    raise NotPlainError


def scheduler_state(scheduler: Any) -> dict[str, Any]:
    """A copy of all attributes but config and methods.

    Raises:
        NotPlainError: one of them cannot be copied.
    """
    return {name: _copied(value) for name, value in _state(scheduler).items()}


def restore_scheduler(scheduler: Any, state: Mapping[str, Any]) -> None:
    """The inverse of :func:`scheduler_state`."""
    own = vars(scheduler)
    for name in _state(scheduler).keys() - state.keys():
        del own[name]
    own.update({name: _copied(value) for name, value in state.items()})


def cloned(tree: Any) -> Any:
    """A copy whose tensors nobody else holds."""
    return tree_map_only(Tensor, torch.clone, tree)


def emptied(tree: Any) -> Any:
    """The same with zeros that take no memory for tensors."""
    return tree_map_only(Tensor, lambda tensor: tensor.new_zeros(()).expand(tensor.shape), tree)


def filled(tree: Any) -> Any:
    """What :func:`emptied` gave, with memory of its own."""
    return tree_map_only(Tensor, lambda tensor: tensor.contiguous(), tree)


def _state(scheduler: Any) -> dict[str, Any]:
    def is_method(name: str, value: Any) -> bool:
        return callable(value) and hasattr(type(scheduler), name)

    return {name: value for name, value in vars(scheduler).items() if name != _CONFIG and not is_method(name, value)}


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, list | tuple):
        return type(value)(_copied(item) for item in value)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str | np.generic | torch.device | torch.dtype):
        return value
    raise NotPlainError


def digest(data: str | bytes) -> str:
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()
