"""The state of one pipeline under a policy: where denoising stands and what has been kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map, tree_map_only

from autotune.plan import Action, Plan, Step


@dataclass
class _Shape:
    """Enough to stand in for a tensor nobody reads."""

    size: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class Session:
    """Clock and kept features of the call in progress.

    The clock counts ``scheduler.step`` calls; it never looks a timestep up, because some
    schedulers repeat timesteps and reading one back would stall a GPU. Between calls, and
    after an exception, there is no plan and every hook steps aside.
    """

    def __init__(self) -> None:
        self.plan: Plan | None = None
        self.generator: Any = None
        self._position = 0
        self._batch = 0
        self._kept: dict[tuple[int, int], Any] = {}
        self._shapes: dict[int, Any] = {}

    def begin(self, plan: Plan, generator: Any) -> None:
        self.reset()
        self.plan = plan
        self.generator = generator

    def reset(self) -> None:
        self.plan = None
        self.generator = None
        self._position = 0
        self._kept.clear()
        self._shapes.clear()

    @property
    def step(self) -> Step | None:
        """The step being computed, or None outside of a call under the policy."""
        return None if self.plan is None else self.plan.steps[self._position]

    def advance(self) -> None:
        """After a scheduler step: forget what no later step reads, move the clock, end with the last step."""
        assert self.plan is not None
        for output in self.plan.steps[self._position].drop:
            del self._kept[output]
        self._position += 1
        if self._position == len(self.plan.steps):
            self.reset()

    def enter_denoiser(self, batch: int) -> None:
        """Note the batch the denoiser is about to compute: kept features may hold more branches."""
        self._batch = batch

    def record(self, unit: int, output: Any, step: Step) -> None:
        """Remember a computed output: its shape always, the tensors where a later step reuses them."""
        self._shapes[unit] = tree_map_only(Tensor, lambda t: _Shape(tuple(t.shape), t.dtype, t.device), output)
        if unit in step.keep:
            self._kept[unit, step.index] = output

    def recall(self, unit: int, step: Step) -> Any:
        """What a unit that does not compute puts out.

        Its last output, or several of them extrapolated, or, where nobody reads it, a stand-in of
        the right shape.
        """
        if step.actions[unit] is Action.NOT_NEEDED:
            return tree_map_only(_Shape, self._stand_in, self._shapes[unit])
        steps, weights = zip(*step.sources[unit], strict=True)

        def combine(*kept: Any) -> Any:
            tensors = [self._conditional(tensor) for tensor in kept]
            return tensors[0] if len(tensors) == 1 else _weighted_sum(tensors, weights)

        return tree_map(combine, *(self._kept[unit, at] for at in steps))

    def kept_bytes(self) -> int:
        """Memory held by kept features now."""
        sizes: list[int] = []
        tree_map_only(Tensor, lambda t: sizes.append(t.numel() * t.element_size()), list(self._kept.values()))
        return sum(sizes)

    def _conditional(self, kept: Tensor) -> Tensor:
        # Pipelines stack [unconditional, conditional]; when guidance has stopped, only the latter goes on.
        return kept if kept.shape[0] == self._batch else kept[-self._batch :]

    def _stand_in(self, shape: _Shape) -> Tensor:
        return torch.zeros((), dtype=shape.dtype, device=shape.device).expand(self._batch, *shape.size[1:])


def _weighted_sum(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = tensors[0] * weights[0]
    for tensor, weight in zip(tensors[1:], weights[1:], strict=True):
        total = total + tensor * weight
    return total
