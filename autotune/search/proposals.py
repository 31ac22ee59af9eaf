"""Knob values to a policy at the budget: the number of steps is solved, never searched.

Quality rises with steps, so the best number of steps for given knobs is the largest one the
budget pays for. It is found from exact prices before anything runs; nothing over budget leaves
this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from autotune.errors import PolicyError
from autotune.policy import ModelInfo, Policy

if TYPE_CHECKING:
    from autotune.cost import Cost, Limits
    from search_spaces import SearchSpace

LEAST_USED = 0.85
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
        limits: What no proposal exceeds.
        max_steps: Most steps a proposal may have.
        plan: Digests what a policy computes, so that policies that compute the same are recognised.
        model: What the proposals are for; recorded in their policies.
    """

    def __init__(
        self,
        space: SearchSpace,
        price: Callable[[Policy], Cost],
        limits: Limits,
        max_steps: int,
        model: ModelInfo | None = None,
        plan: Callable[[Policy], str] = lambda policy: policy.key,
    ) -> None:
        self.space = space
        self.limits = limits
        self.max_steps = max_steps
        self._price = price
        self.plan = plan
        self._model = model
        self._prices: dict[str, Cost] = {}

    def propose(self, values: Mapping[str, int]) -> Proposal | None:
        """The policy with the most steps the budget pays for, or None where it pays for not even one.

        A setting so cheap that ``max_steps`` steps use less than 85 % of the budget is made
        costlier, one notch at a time and in the space's order (:attr:`SearchSpace.costlier`),
        until it no longer is. At small budgets a single step can be worth more than the other
        15 %; those proposals stay below it. One that keeps more in memory than is allowed is first
        made to keep less by the same notches.
        """
        proposal = self._most_steps(self._within_memory(values))
        if proposal is None:
            return None
        for name, direction, end in self._notches():
            while self._too_cheap(proposal) and proposal.values[name] != end:
                costlier = self._most_steps({**proposal.values, name: proposal.values[name] + direction})
                if costlier is None:
                    break
                proposal = costlier
        return proposal

    def allows(self, policy: Policy) -> bool:
        """Whether a policy is within the budget."""
        return self.limits.allow(self._priced({}, policy).cost)

    def explicit(self, policy: Policy, values: Mapping[str, int]) -> Proposal | None:
        """A policy that no knobs stand for, or None where it is over the budget, leaves much of it or cannot run.

        Args:
            policy: The policy.
            values: The knob values of the policy that it was made from.
        """
        try:
            proposal = self._priced(values, policy)
        except PolicyError:
            return None
        fits = self.limits.allow(proposal.cost) and self.limits.used(proposal.cost) >= LEAST_USED
        return proposal if fits else None

    def _notches(self) -> list[tuple[str, int, int]]:
        """Knob, direction and end of what makes a setting costlier."""
        bounds = {knob.name: (knob.low, knob.high) for knob in self.space.knobs}
        return [(name, direction, bounds[name][direction > 0]) for name, direction in self.space.costlier]

    def _too_cheap(self, proposal: Proposal) -> bool:
        return proposal.policy.steps == self.max_steps and self.limits.used(proposal.cost) < LEAST_USED

    def _within_memory(self, values: Mapping[str, int]) -> Mapping[str, int]:
        """``values``, or a setting near it that fits into memory at the most steps.

        Knobs are moved only as far and only where that takes less memory: first notch by notch, then to their ends.
        """
        if self.limits.memory_bytes is None:
            return values
        fitting = self._at(values, self.max_steps)
        for jump in (False, True):
            for name, direction, end in self._notches():
                while not self.limits.allow_memory(fitting.cost) and fitting.values[name] != end:
                    value = end if jump else fitting.values[name] + direction
                    smaller = self._at({**fitting.values, name: value}, self.max_steps)
                    if smaller.cost.memory_bytes >= fitting.cost.memory_bytes:
                        break
                    fitting = smaller
        return fitting.values

    def _most_steps(self, values: Mapping[str, int]) -> Proposal | None:
        affordable, too_many = 0, self.max_steps + 1
        while too_many - affordable > 1:
            middle = (affordable + too_many) // 2
            if self.limits.allow(self._at(values, middle).cost):
                affordable = middle
            else:
                too_many = middle
        # Rounding of the knobs to whole steps makes prices dip here and there: look past the bisection's end.
        while affordable < self.max_steps and self.limits.allow(self._at(values, affordable + 1).cost):
            affordable += 1
        return self._at(values, affordable) if affordable else None

    def _at(self, values: Mapping[str, int], steps: int) -> Proposal:
        return self._priced(values, self.space.policy(values, steps))

    def _priced(self, values: Mapping[str, int], policy: Policy) -> Proposal:
        policy = policy.model_copy(update={"model": self._model})
        if policy.key not in self._prices:
            self._prices[policy.key] = self._price(policy)
        return Proposal(dict(values), policy, self._prices[policy.key])
