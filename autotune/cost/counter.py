"""Counting the arithmetic of what runs on the ``meta`` device, each operation once for each shape of its arguments."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from autotune.cost.work import Work

# The papers' "MACs" are those of convolutions and linear layers; attention products are left out.
_CONV_LINEAR = {torch.ops.aten.convolution, torch.ops.aten._convolution, torch.ops.aten.addmm, torch.ops.aten.mm}
# Of a tensor that an operation makes.
_Layout = tuple[tuple[int, ...], tuple[int, ...], torch.dtype]


@dataclass(frozen=True)
class _Known:
    """What an operation makes, and the FLOPs it takes."""

    made: tuple[_Layout, ...]
    single: bool
    flops: int


class WorkCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what ``FlopCounterMode`` counts, by the part of a model that is computed at the time.

    It follows no modules: who wants to know of parts calls :meth:`enter` and :meth:`leave`. A denoiser repeats its
    blocks, and to find out what an operation makes on ``meta`` takes much longer than to remember it.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._work: dict[Hashable, Work] = defaultdict(lambda: Work(0, 0))
        self._open: list[Hashable] = []
        self._known: dict[Hashable, _Known] = {}

    @property
    def total(self) -> Work:
        """Of all parts, and of what belongs to none."""
        return sum(self._work.values(), Work(0, 0))

    def of(self, part: Hashable = None) -> Work:
        """Of a part without those that were entered inside of it, or of what belongs to none."""
        return self._work[part]

    def enter(self, part: Hashable) -> None:
        """From now on ``part`` is computed, inside of what was before."""
        self._open.append(part)

    def leave(self) -> None:
        """The part that was entered last is done."""
        self._open.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation, or make what it is known to make."""
        kwargs = kwargs or {}
        key = _key(func, args, kwargs)
        known = None if key is None else self._known.get(key)
        if known is not None:
            self._add(func, known.flops)
            made = tuple(
                torch.empty_strided(shape, stride, dtype=dtype, device="meta") for shape, stride, dtype in known.made
            )
            return made[0] if known.single else made
        if func.overloadpacket not in flop_registry:
            # An operation that is made of others; inside of it they are counted.
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        count = flop_registry.get(func.overloadpacket)
        flops = 0 if count is None else int(count(*args, **kwargs, out_val=output))
        self._add(func, flops)
        if key is not None:
            outputs: tuple[Any, ...] = output if isinstance(output, tuple) else (output,)
            if all(isinstance(each, Tensor) and each.is_meta for each in outputs):
                layouts = tuple((tuple(each.shape), each.stride(), each.dtype) for each in outputs)
                self._known[key] = _Known(layouts, isinstance(output, Tensor), flops)
        return output

    def _add(self, func: Any, flops: int) -> None:
        if flops:
            part = self._open[-1] if self._open else None
            self._work[part] += Work(flops, flops // 2 if func.overloadpacket in _CONV_LINEAR else 0)


def _key(func: Any, args: Any, kwargs: Any) -> Hashable | None:
    """What decides what an operation makes; None where it may alias its arguments, or reads more than their shapes."""
    schema = func._schema
    if any(each.alias_info is not None for each in (*schema.arguments, *schema.returns)):
        return None
    try:
        described = tuple(map(_described, args)), tuple((name, _described(each)) for name, each in kwargs.items())
    except _Elsewhere:
        return None
    return func, described


class _Elsewhere(Exception):
    """A tensor has values."""


def _described(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        if not value.is_meta:
            raise _Elsewhere
        return tuple(value.shape), value.stride(), value.dtype
    if isinstance(value, (list, tuple)):
        return tuple(map(_described, value))
    # One, true and 1.0 are the same key, and make tensors of different dtypes.
    return type(value), value
