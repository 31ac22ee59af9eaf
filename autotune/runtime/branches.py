"""Guidance branches: taking one of those stacked in one batch, and standing one in for another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.utils import BaseOutput
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from autotune.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Difference:
    """Conditional minus unconditional.

    Attributes:
        rows: of either branch.
        values: in the form of the denoiser's output for one branch.
    """

    rows: int
    values: Any

    @classmethod
    def of(cls, conditional: Any, unconditional: Any, rows: int) -> Difference:
        return cls(rows, tree_map(_minus, conditional, unconditional))

    def unconditional(self, conditional: Any, factor: float = 1) -> Any:
        """What guidance takes for the unconditional branch, to add ``factor`` times this difference."""
        if factor == 1:
            return tree_map(_minus, conditional, self.values)
        return tree_map(lambda one, other: _minus(one, _times(other, factor)), conditional, self.values)


def half(name: str, value: Any, rows: int, *, first: bool, listed: bool) -> Any:
    """Of an argument's ``rows`` stacked rows the first or the last half.

    Tensors at any depth have their rows along the first dimension; one of another length there has none. A list as
    long as there are rows is no list of rows for that: two IP-Adapters have one entry each, with all rows in each.

    Args:
        name: the argument's.
        value: the argument.
        rows: how many there are.
        first: which half.
        listed: whether the denoiser takes its rows as entries of lists.

    Raises:
        InputError: a list may be one of rows, of a denoiser that is not known to take such, or a tensor has several
            entries for each row.
    """
    part = slice(0, rows // 2) if first else slice(rows // 2, rows)
    if listed and isinstance(value, list) and len(value) == rows:
        return value[part]
    if isinstance(value, list) and len(value) == rows and not all(_holds_rows(leaf, rows) for leaf in _leaves(value)):
        raise InputError(
            f"the denoiser's argument {name!r} is a list of {rows} entries, which may be its rows or not, so guidance"
            " cannot stop under this policy: leave guidance out of the policy, or the argument out of the call"
        )

    def within(inner: Any, key: str = "") -> Any:
        if isinstance(inner, Tensor):
            count = inner.shape[0] if inner.ndim else 0
            if key and count > rows and count % rows == 0:
                raise InputError(
                    f"{key!r} in the denoiser's argument {name!r} has {count} rows for a batch of {rows}, so guidance"
                    " cannot stop under this policy: give one row for each picture and branch, or leave guidance out of"
                    " the policy"
                )
            return inner[part] if count == rows else inner
        if isinstance(inner, (list, tuple)):
            return type(inner)(within(item, key) for item in inner)
        if isinstance(inner, Mapping):
            return {key: within(item, str(key)) for key, item in inner.items()}
        return inner

    return within(value)


def twice(output: Any, *, listed: bool) -> Any:
    """The denoiser's output for one branch, in place of both.

    Unconditional + scale * (conditional - unconditional) is then exactly the conditional one.
    """
    return joined(output, output, listed=listed)


def joined(first: Any, last: Any, *, listed: bool) -> Any:
    """The denoiser's outputs for either branch as its output for both in one batch."""
    if isinstance(first, Tensor):
        return torch.cat([first, last])
    if isinstance(first, list) and listed:
        return first + last
    if isinstance(first, list | tuple):
        return type(first)(joined(one, other, listed=listed) for one, other in zip(first, last, strict=True))
    if isinstance(first, BaseOutput):
        return type(first)(**{key: joined(first[key], last[key], listed=listed) for key in first.keys()})  # noqa: SIM118
    return first


def parted(output: Any, *, listed: bool) -> tuple[Any, Any]:
    """The inverse of :func:`joined`."""
    if isinstance(output, Tensor) or (isinstance(output, list) and listed):
        middle = len(output) // 2
        return output[:middle], output[middle:]
    if isinstance(output, list | tuple):
        parts = [parted(item, listed=listed) for item in output]
        return type(output)(first for first, _ in parts), type(output)(last for _, last in parts)
    if isinstance(output, BaseOutput):
        named = {key: parted(item, listed=listed) for key, item in output.items()}
        kind = type(output)
        return kind(**{key: each[0] for key, each in named.items()}), kind(**{k: each[1] for k, each in named.items()})
    return output, output


def row_count(sample: Any) -> int:
    """Rows of a denoiser's sample: a tensor, or a list with one tensor a row."""
    return len(sample) if isinstance(sample, list) else int(sample.shape[0])


def _times(value: Any, factor: float) -> Any:
    return value * factor if isinstance(value, Tensor) else value


def _minus(one: Any, other: Any) -> Any:
    return one - other if isinstance(one, Tensor) else one


def _leaves(value: Any) -> list[Any]:
    leaves: list[Any] = tree_leaves(value)
    return leaves


def _holds_rows(leaf: Any, rows: int) -> bool:
    """Whether it has all rows, or one that is the same for all."""
    return leaf is None or (isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] in (1, rows))
