"""Knob values to a policy at the budget: the number of steps is solved, never searched.

Quality rises with steps, so the best number of steps for given knobs is the largest one the
budget pays for. It is found from exact prices before anything runs; nothing over budget leaves
this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.policy import ModelInfo, Policy

if TYPE_CHECKING:
    from autotune.cost import Cost
    from search_spaces import SearchSpace

LEAST_USED_PERCENT = 85
"""A setting that leaves more of the budget unused even at the most steps is made costlier."""


@dataclass(frozen=True)
class Proposal:
    """A policy within the budget, the knob values it stands for (after repair) and its price."""

    values: Mapping[str, int]
    policy: Policy
    cost: Cost


class Proposer:
    """Turns knob values into policies at the budget.

    Args:
        space: The knobs.
        price: The exact price of a policy.
        limit: FLOPs that no proposal exceeds.
        max_steps: Most steps a proposal may have.
        model: What the proposals are for; recorded in their policies.
    """

    def __init__(
        self,
        space: SearchSpace,
        price: Callable[[Policy], Cost],
        limit: int,
        max_steps: int,
        model: ModelInfo | None = None,
    ) -> None:
        self.space = space
        self.limit = limit
        self.max_steps = max_steps
        self._price = price
        self._model = model
        self._prices: dict[str, Cost] = {}

    def propose(self, values: Mapping[str, int]) -> Proposal | None:
        """The policy with the most steps the budget pays for, or None where it pays for not even one.

        A setting so cheap that ``max_steps`` steps use less than 85 % of the budget is made
        costlier, one notch at a time and in the space's order (:attr:`SearchSpace.costlier`),
        until it no longer is. At small budgets a single step can be worth more than the other
        15 %; those proposals stay below it.
        """
        proposal = self._most_steps(values)
        if proposal is None:
            return None
        bounds = {knob.name: (knob.low, knob.high) for knob in self.space.knobs}
        for name, direction in self.space.costlier:
            end = bounds[name][direction > 0]
            while self._too_cheap(proposal) and proposal.values[name] != end:
                costlier = self._most_steps({**proposal.values, name: proposal.values[name] + direction})
                if costlier is None:
                    break
                proposal = costlier
        return proposal

    def _too_cheap(self, proposal: Proposal) -> bool:
        used = 100 * proposal.cost.flops
        return proposal.policy.steps == self.max_steps and used < LEAST_USED_PERCENT * self.limit

    def _most_steps(self, values: Mapping[str, int]) -> Proposal | None:
        affordable, too_many = 0, self.max_steps + 1
        while too_many - affordable > 1:
            middle = (affordable + too_many) // 2
            if self._at(values, middle).cost.flops <= self.limit:
                affordable = middle
            else:
                too_many = middle
        # Rounding of the knobs to whole steps makes prices dip here and there: look past the bisection's end.
        while affordable < self.max_steps and self._at(values, affordable + 1).cost.flops <= self.limit:
            affordable += 1
        return self._at(values, affordable) if affordable else None

    def _at(self, values: Mapping[str, int], steps: int) -> Proposal:
        policy = self.space.policy(values, steps).model_copy(update={"model": self._model})
        if policy.key not in self._prices:
            self._prices[policy.key] = self._price(policy)
        return Proposal(dict(values), policy, self._prices[policy.key])
