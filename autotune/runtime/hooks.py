"""Hooks on the denoiser, its units and its blocks. They only follow the plan; they decide nothing."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.hooks import ModelHook
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from autotune.plan import Action, Step
from autotune.runtime.session import Session
from autotune.structure import Block


class UnitHook(ModelHook):  # type: ignore[misc]
    """Compute, reuse or skip one unit, as the plan says for this step."""

    def __init__(self, session: Session, unit: int) -> None:
        super().__init__()
        self.session = session
        self.unit = unit

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        step = self.session.step
        if step is None:
            return self.fn_ref.original_forward(*args, **kwargs)
        if step.actions[self.unit] is not Action.COMPUTE:
            return self.session.recall(self.unit, step)
        output = self.fn_ref.original_forward(*args, **kwargs)
        self.session.record(self.unit, output, step)
        return output


class BlockHook(ModelHook):  # type: ignore[misc]
    """Step over a whole block when none of its units computes, sparing the glue between them."""

    def __init__(self, session: Session, block: Block) -> None:
        super().__init__()
        self.session = session
        self.block = block

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        step = self.session.step
        if step is None or any(step.actions[unit] is Action.COMPUTE for unit in self.block.units):
            return self.fn_ref.original_forward(*args, **kwargs)
        last = self._output(self.block.last, step)
        if self.block.outputs is None:
            return last
        return last, tuple(self._output(unit, step) for unit in self.block.outputs)

    def _output(self, unit: int, step: Step) -> Tensor:
        output = self.session.recall(unit, step)
        # Attention layers return a tuple, of which blocks pass on the first entry.
        tensor: Tensor = output[0] if isinstance(output, tuple) else output
        return tensor


class DenoiserHook(ModelHook):  # type: ignore[misc]
    """Run the conditional branch alone where the plan has one branch and the pipeline stacked two."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self.guided = False

    def new_forward(self, module: nn.Module, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        step = self.session.step
        if step is None:
            return self.fn_ref.original_forward(sample, *args, **kwargs)
        batch = sample.shape[0]
        halved = self.guided and step.branches == 1
        if halved:
            sample, args, kwargs = tree_map_only(
                Tensor,
                lambda t: t[batch // 2 :] if t.ndim and t.shape[0] == batch else t,
                (sample, args, kwargs),
            )
        self.session.enter_denoiser(sample.shape[0])
        try:
            output = self.fn_ref.original_forward(sample, *args, **kwargs)
        except BaseException:
            self.session.reset()
            raise
        if halved:
            # Twice the same branch: unconditional + scale * (conditional - unconditional) is then exactly it.
            output = tree_map_only(Tensor, lambda t: torch.cat([t, t]), output)
        return output
