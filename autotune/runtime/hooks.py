"""Hooks on the denoiser, its units and its blocks. They do what the session tells them; they decide nothing.

A hook's state is a handful of plain attributes that the session sets before each call, so that
``torch.compile`` traces one graph per combination of actions and not one per step.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers.hooks import ModelHook
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from autotune.plan import Action
from autotune.structure import Unit

COMPUTE, RESIDUAL, NOT_NEEDED = int(Action.COMPUTE), int(Action.RESIDUAL), int(Action.NOT_NEEDED)


class UnitHook(ModelHook):  # type: ignore[misc]
    """Compute one unit, or put out what is given in its place.

    Attributes:
        action: an :class:`~autotune.plan.Action` as a plain int.
        keep: whether the session wants this call's result, left in ``computed``.
        given, weights: earlier results and their weights; their sum is the output.
        first: the hook of the first block of a residual's range, which notes the range's input in ``entry``.
        shape: sizes of the output's tensors, noted where ``note_shape`` is set.
    """

    def __init__(self, unit: Unit, module: nn.Module) -> None:
        super().__init__()
        self.name = unit.name
        self.passes = unit.kind == "block" and bool(unit.streams)
        names = list(inspect.signature(module.forward).parameters)
        self.streams = tuple((name, names.index(name)) for name in unit.streams)
        self.first = self
        self.residual = False
        self.notes_entry = False
        self.shape: Any = None
        self.rest()

    def rest(self) -> None:
        """Compute as if there were no hook, and hold nothing."""
        self.action = COMPUTE
        self.keep = False
        self.note_shape = False
        self.given: tuple[Any, ...] = ()
        self.weights: tuple[Tensor, ...] = ()
        self.computed: Any = None
        self.entry: tuple[Any, ...] = ()

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self.notes_entry:
            self.entry = self._streams(args, kwargs)
        if self.action == COMPUTE:
            output = self.fn_ref.original_forward(*args, **kwargs)
            if self.keep:
                self.computed = _minus(output, self.first.entry) if self.residual else output
            if self.note_shape:
                self.shape = tree_map_only(Tensor, lambda t: (tuple(t.shape), t.dtype, t.device), output)
            return output
        if self.action == RESIDUAL:
            return _plus(self.given[0], self.first.entry)
        if self.action == NOT_NEEDED and self.passes:
            # Residual streams go by; nobody reads what this block would have added.
            streams = self._streams(args, kwargs)
            return streams[0] if len(streams) == 1 else streams
        return self.given[0] if len(self.given) == 1 else _weighted_sum(self.given, self.weights)

    def _streams(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        return tuple(kwargs[name] if name in kwargs else args[position] for name, position in self.streams)


class BlockHook(ModelHook):  # type: ignore[misc]
    """Step over a whole U-Net block when none of its units computes, sparing the glue between them."""

    def __init__(self, units: Sequence[int], last: UnitHook, outputs: Sequence[UnitHook] | None) -> None:
        super().__init__()
        self.units = tuple(units)
        self.last = last
        self.outputs = None if outputs is None else tuple(outputs)
        self.skip = False

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if not self.skip:
            return self.fn_ref.original_forward(*args, **kwargs)
        last = _tensor_given(self.last)
        if self.outputs is None:
            return last
        return last, tuple(_tensor_given(hook) for hook in self.outputs)


class DenoiserHook(ModelHook):  # type: ignore[misc]
    """Hand the call to ``evaluate(forward, args, kwargs)``."""

    def __init__(self, evaluate: Callable[..., Any]) -> None:
        super().__init__()
        self.evaluate = evaluate

    # The clock is read eagerly; what is inside is compiled as ever.
    @torch.compiler.disable(recursive=False)  # type: ignore[untyped-decorator, no-untyped-call]
    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self.evaluate(self.fn_ref.original_forward, args, kwargs)


def _tensor_given(hook: UnitHook) -> Tensor:
    """What a hook is given to put out; attention layers return a tuple, of which blocks pass on the first entry."""
    output = hook.given[0] if len(hook.given) == 1 else _weighted_sum(hook.given, hook.weights)
    tensor: Tensor = output[0] if isinstance(output, tuple) else output
    return tensor


def _weighted_sum(outputs: Sequence[Any], weights: Sequence[Tensor]) -> Any:
    def combine(*tensors: Tensor) -> Tensor:
        total = tensors[0] * weights[0]
        for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
            total = total + tensor * weight
        return total

    return tree_map(combine, *outputs)


def _minus(output: Any, entry: tuple[Any, ...]) -> Any:
    if isinstance(output, Tensor):
        return output - entry[0]
    return tuple(None if out is None else out - into for out, into in zip(output, entry, strict=True))


def _plus(residual: Any, entry: tuple[Any, ...]) -> Any:
    if isinstance(residual, Tensor):
        return residual + entry[0]
    return tuple(None if part is None else part + into for part, into in zip(residual, entry, strict=True))
