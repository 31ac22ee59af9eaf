"""Clock and kept features of the pipeline call in progress, and what hooks are told in each call of the denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from autotune.plan import Action, DenoiserCall, Guided, Plan, is_weighted
from autotune.runtime.branches import Difference
from autotune.runtime.call import CallState, Kept, Prepared, SinceStep
from autotune.runtime.hook_set import HookShare
from autotune.runtime.prefix.sharing import SharedCall
from autotune.runtime.snapshot import cloned

_FROM_MEMORY = {Action.REUSE, Action.FORECAST, Action.RESIDUAL}


class Session:
    """Drives the hooks along the plan of the call in progress.

    The clock counts ``scheduler.step`` calls; it never looks a timestep up, because some
    schedulers repeat timesteps and reading one back would stall a GPU. Between calls, and
    after an exception, there is no plan and every hook rests.

    Args:
        hooks: on the denoiser.
        conditional_first: whether batched rows are [conditional, unconditional].

    Attributes:
        hooks: on the denoiser.
        call: the state of the call in progress or, between calls, of one that has not begun.
    """

    def __init__(self, hooks: HookShare, *, conditional_first: bool = False) -> None:
        self.call = CallState()
        self.hooks = hooks
        self._conditional_first = conditional_first

    def renew(self, *, prepared: Prepared | None = None, shared: SharedCall | None = None) -> CallState:
        """Forget everything about a call but what is handed on. Nothing else resets anything.

        Args:
            prepared: what the call that begins has prepared.
            shared: what it has in common with earlier ones.
        """
        self.call = CallState(prepared or Prepared(), shared)
        self.hooks.forget()
        return self.call

    def end(self) -> None:
        """The call is over, or was broken off. Whether it is shared holds until the pipeline has returned."""
        self.renew(shared=self.call.shared)

    def revise(self, plan: Plan) -> None:
        """Go on under another plan of the same first call, keeping only what it takes later."""
        call = self.call
        call.plan = plan
        keep = plan.steps[call.position].keep
        call.kept = {key: kept for key, kept in call.kept.items() if key[1] in keep}

    @property
    def features(self) -> Kept:
        """Kept results by (branch, unit, call), with the rows they were computed for."""
        return dict(self.call.kept)

    @property
    def shapes(self) -> Mapping[int, Any]:
        """What units' hooks note of their outputs, for stand-ins."""
        return {unit: hook.shape for unit, hook in self.hooks.units.items() if hook.passes or hook.shape is not None}

    @property
    def difference(self) -> Difference | None:
        """Of guidance's branches, where the next call is to reuse it."""
        return self.call.difference

    def resume(
        self,
        calls: int,
        features: Mapping[tuple[int, int, int], tuple[int, Any]],
        shapes: Mapping[int, Any],
        difference: Difference | None,
    ) -> None:
        """Stand where another call stood after so many calls.

        It had these :attr:`features` and :attr:`shapes` then, and this :attr:`difference`.
        """
        self.call.position = calls
        self.call.kept = dict(features)
        self.call.difference = difference
        for unit, hook in self.hooks.units.items():
            hook.shape = shapes.get(unit)

    @property
    def plan(self) -> Plan | None:
        """The plan of the call in progress, or None outside of a call under the policy."""
        return self.call.plan

    @property
    def position(self) -> int:
        """How many calls of the denoiser are done."""
        return self.call.position

    @property
    def step(self) -> DenoiserCall | None:
        """The step being computed, or None outside of a call under the policy."""
        call = self.call
        return None if call.plan is None else call.plan.steps[call.position]

    @property
    def following(self) -> DenoiserCall:
        """The step after the one being computed."""
        assert self.call.plan is not None
        return self.call.plan.steps[self.call.position + 1]

    @property
    def keeps_difference(self) -> bool:
        """Whether the call after the one being computed reuses the difference of guidance's branches.

        By the policy: guidance that a call begins without may be turned on in the middle of it.
        """
        plan, following = self.call.plan, self.call.position + 1
        assert plan is not None
        return following < len(plan.steps) and plan.steps[following].guidance is Guided.DIFFERENCE

    def enter(self, branch: int, rows: int, keep: frozenset[int] | None = None) -> None:
        """Tell every hook what to do in the denoiser call that is about to compute ``rows`` rows.

        ``branch`` is 1 in a second call of the same step; ``keep`` overrides the plan's. Where guidance has come back
        since something was kept, nobody has the other branch's part of it, and everything computes.
        """
        step = self.step
        assert step is not None
        kept = step.keep if keep is None else keep
        serves = all(
            self._kept_rows((branch, unit, call)) >= rows for unit, terms in step.sources.items() for call, _ in terms
        )
        for unit, hook in self.hooks.units.items():
            action = step.actions[unit] if serves else Action.COMPUTE
            hook.action = int(action)
            hook.keep = unit in kept
            if unit in self.hooks.residuals and (hook.keep or action is Action.RESIDUAL):
                hook.first = self.hooks.residuals[unit]
                hook.first.notes_entry = True
            if action in _FROM_MEMORY:
                terms = step.sources[unit]
                hook.given = tuple(self._recall((branch, unit, call), rows) for call, _ in terms)
                if is_weighted(terms):
                    hook.weights = tuple(torch.tensor(weight, dtype=torch.float32) for _, weight in terms)
            elif action is Action.NOT_NEEDED and hook.shape is not None:
                hook.given = (self._stand_in(hook.shape, rows),)
        for block in self.hooks.blocks:
            block.skip = serves and all(
                step.actions[unit] is not Action.COMPUTE and step.actions[unit] is not Action.RESIDUAL
                for unit in block.units
            )

    def leave(self, branch: int, rows: int, difference: Difference | None = None) -> None:
        """After the denoiser call: take over what the hooks were asked to keep, and the difference of the branches."""
        step = self.step
        assert step is not None
        self.call.difference = difference or self.call.difference
        kept, copies = self.call.kept, self.hooks.copies
        for unit, hook in self.hooks.units.items():
            if hook.keep:
                kept[branch, unit, step.index] = (rows, cloned(hook.computed) if copies else hook.computed)
        self.hooks.rest()

    def advance(self) -> None:
        """After a scheduler step: forget what no later step reads, move the clock, end with the last step."""
        call = self.call
        assert call.plan is not None
        drop = call.plan.steps[call.position].drop
        call.kept = {key: kept for key, kept in call.kept.items() if key[1:] not in drop}
        if not self.keeps_difference:
            call.difference = None
        call.since_step = SinceStep()
        call.position += 1
        if call.position == len(call.plan.steps):
            self.end()

    def kept_bytes(self) -> int:
        """Memory held now by kept features and the difference of the branches."""
        difference = self.call.difference
        held = [output for _, output in self.call.kept.values()], None if difference is None else difference.values
        leaves = tree_leaves(held)
        return sum(leaf.numel() * leaf.element_size() for leaf in leaves if isinstance(leaf, Tensor))

    def _kept_rows(self, key: tuple[int, int, int]) -> int:
        """With how many rows a result was kept; 0 where it was not."""
        return self.call.kept[key][0] if key in self.call.kept else 0

    def _recall(self, key: tuple[int, int, int], rows: int) -> Any:
        """A kept result; where guidance has stopped since, its conditional half."""
        rows_then, output = self.call.kept[key]
        if rows == rows_then:
            return output

        def conditional(tensor: Tensor) -> Tensor:
            count = tensor.shape[0] * rows // rows_then
            return tensor[:count] if self._conditional_first else tensor[-count:]

        return tree_map_only(Tensor, conditional, output)

    def _stand_in(self, shape: Any, rows: int) -> Any:
        """Something of the right shape that nobody reads, and that takes no memory until it is put out."""

        def zeros(size: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
            return torch.zeros((), dtype=dtype, device=device).expand(rows, *size[1:])

        return tree_map(lambda leaf: zeros(*leaf), shape, is_leaf=_is_shape)


def _is_shape(node: Any) -> bool:
    return isinstance(node, tuple) and len(node) == 3 and isinstance(node[1], torch.dtype)
