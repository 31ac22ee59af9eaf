"""The state of one pipeline call under a policy: where denoising stands and which features are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from autotune.plan import Action, DenoiserCall, Plan
from autotune.runtime.hooks import BlockHook, UnitHook
from autotune.runtime.snapshot import cloned

_FROM_MEMORY = {Action.REUSE, Action.FORECAST, Action.RESIDUAL}


class Session:
    """Clock and kept features.

    The clock counts ``scheduler.step`` calls; it never looks a timestep up, because some
    schedulers repeat timesteps and reading one back would stall a GPU. Between calls, and
    after an exception, there is no plan and every hook rests.

    Args:
        hooks: the hook of every unit that some step does not compute.
        blocks: the hooks of blocks that can be stepped over.
        conditional_first: whether batched rows are [conditional, unconditional].

    Attributes:
        copies: whether features come out of compiled code and must be copied to be kept.
    """

    def __init__(
        self, hooks: Mapping[int, UnitHook], blocks: Sequence[BlockHook], *, conditional_first: bool = False
    ) -> None:
        self.plan: Plan | None = None
        self.copies = False
        self._hooks = hooks
        self._blocks = blocks
        self._conditional_first = conditional_first
        self._position = 0
        # Kept results by (branch, unit, call), with the rows they were computed for.
        self._kept: dict[tuple[int, int, int], tuple[int, Any]] = {}

    def begin(self, plan: Plan) -> None:
        self.reset()
        self.plan = plan

    def revise(self, plan: Plan) -> None:
        """Go on under another plan of the same first call, keeping only what it takes later."""
        self.plan = plan
        keep = plan.steps[self._position].keep
        self._kept = {key: kept for key, kept in self._kept.items() if key[1] in keep}

    def reset(self) -> None:
        self.plan = None
        self._position = 0
        self._kept.clear()
        self._rest()
        for hook in self._hooks.values():
            hook.shape = None

    @property
    def features(self) -> Mapping[tuple[int, int, int], tuple[int, Any]]:
        """Kept results by (branch, unit, call), with the rows they were computed for."""
        return dict(self._kept)

    @property
    def shapes(self) -> Mapping[int, Any]:
        """What units' hooks note of their outputs, for stand-ins."""
        return {unit: hook.shape for unit, hook in self._hooks.items() if hook.passes or hook.shape is not None}

    def resume(
        self, calls: int, features: Mapping[tuple[int, int, int], tuple[int, Any]], shapes: Mapping[int, Any]
    ) -> None:
        """Stand where another call stood after so many calls, with :attr:`features` and :attr:`shapes` it had then."""
        self._position = calls
        self._kept = dict(features)
        for unit, hook in self._hooks.items():
            hook.shape = shapes.get(unit)

    @property
    def position(self) -> int:
        """How many calls of the denoiser are done."""
        return self._position

    @property
    def step(self) -> DenoiserCall | None:
        """The step being computed, or None outside of a call under the policy."""
        return None if self.plan is None else self.plan.steps[self._position]

    @property
    def following(self) -> DenoiserCall:
        """The step after the one being computed."""
        assert self.plan is not None
        return self.plan.steps[self._position + 1]

    def enter(self, branch: int, rows: int, keep: frozenset[int] | None = None) -> None:
        """Tell every hook what to do in the denoiser call that is about to compute ``rows`` rows.

        ``branch`` is 1 in a second call of the same step; ``keep`` overrides the plan's.
        """
        step = self.step
        assert step is not None
        kept = step.keep if keep is None else keep
        for unit, hook in self._hooks.items():
            action = step.actions[unit]
            hook.action = int(action)
            hook.keep = unit in kept
            if action in _FROM_MEMORY:
                terms = step.sources[unit]
                hook.given = tuple(self._recall((branch, unit, call), rows) for call, _ in terms)
                if len(terms) > 1:
                    hook.weights = tuple(torch.tensor(weight, dtype=torch.float32) for _, weight in terms)
            elif action is Action.NOT_NEEDED and hook.shape is not None:
                hook.given = (self._stand_in(hook.shape, rows),)
        for block in self._blocks:
            block.skip = all(
                step.actions[unit] is not Action.COMPUTE and step.actions[unit] is not Action.RESIDUAL
                for unit in block.units
            )

    def leave(self, branch: int, rows: int) -> None:
        """After the denoiser call: take over what the hooks were asked to keep."""
        step = self.step
        assert step is not None
        for unit, hook in self._hooks.items():
            if hook.keep:
                self._kept[branch, unit, step.index] = (rows, cloned(hook.computed) if self.copies else hook.computed)
        self._rest()

    def advance(self) -> None:
        """After a scheduler step: forget what no later step reads, move the clock, end with the last step."""
        assert self.plan is not None
        drop = self.plan.steps[self._position].drop
        self._kept = {key: kept for key, kept in self._kept.items() if key[1:] not in drop}
        self._position += 1
        if self._position == len(self.plan.steps):
            self.reset()

    def kept_bytes(self) -> int:
        """Memory held by kept features now."""
        leaves = tree_leaves([output for _, output in self._kept.values()])
        return sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))

    def _rest(self) -> None:
        for hook in self._hooks.values():
            hook.rest()
        for block in self._blocks:
            block.skip = False

    def _recall(self, key: tuple[int, int, int], rows: int) -> Any:
        """A kept result; where guidance has stopped since, its conditional half."""
        rows_then, output = self._kept[key]
        if rows == rows_then:
            return output

        def conditional(tensor: Tensor) -> Tensor:
            count = tensor.shape[0] * rows // rows_then
            return tensor[:count] if self._conditional_first else tensor[-count:]

        return tree_map_only(Tensor, conditional, output)

    def _stand_in(self, shape: Any, rows: int) -> Any:
        """Something of the right shape that nobody reads and that takes no memory."""

        def zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
            return torch.zeros((), dtype=dtype, device=device).expand(rows, *size[1:])

        return tree_map(lambda leaf: zeros(*leaf), shape, is_leaf=_is_shape)


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple) and len(node) == 3 and isinstance(node[1], torch.dtype)
