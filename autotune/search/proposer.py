"""Knob values to a policy at the budget: the number of steps is solved, never searched.

Quality rises with steps, so the best number of steps for given knobs is the largest one the
budget pays for. It is found from exact prices before anything runs; nothing over budget leaves
this module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from autotune.core.errors import PolicyError
from autotune.policy import ModelInfo, Policy

if TYPE_CHECKING:
    from autotune.cost import Cost, Limits
    from search_spaces import SearchSpace

LEAST_USED = 0.85
"""A setting that leaves more of the budget unused even at the most steps is made to cost more."""


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
        least_steps: Fewest steps a proposal may have. Settings that are too costly for as many are made cheaper;
            None: as few as the budget pays for, and settings are never made cheaper.
        fewest: Fewest steps of which a call executes any; image-to-image leaves out the first ones.
    """

    def __init__(
        self,
        space: SearchSpace,
        price: Callable[[Policy], Cost],
        limits: Limits,
        max_steps: int,
        model: ModelInfo | None = None,
        plan: Callable[[Policy], str] = lambda policy: policy.key,
        least_steps: int | None = None,
        fewest: int = 1,
    ) -> None:
        self.space = space
        self.limits = limits
        self.max_steps = max_steps
        self.least_steps = least_steps
        self._fewest = fewest
        self._price = price
        self.plan = plan
        self._model = model
        self._prices: dict[str, Cost] = {}

    def restricted(self, limits: Limits, *, space: SearchSpace | None = None, steps: int | None = None) -> Self:
        """The same within other limits and, where given, with fewer choices or one number of steps."""
        other = copy.copy(self)
        other.limits = limits
        if space is not None:
            other.space = space
        if steps is not None:
            other.least_steps = other.max_steps = steps
        return other

    def propose(self, values: Mapping[str, int]) -> Proposal | None:
        """The policy with the most steps the budget pays for, or None where it pays for not even the fewest.

        A setting so cheap that ``max_steps`` steps use less than 85 % of the budget is made
        to cost more, one notch at a time and in the space's order (:attr:`SearchSpace.repair_order`),
        until it no longer is. At small budgets a single step can be worth more than the other
        15 %; those proposals stay below it. One that keeps more in memory than is allowed is first
        made to keep less by the same notches.
        """
        values = self._within_memory(values)
        proposal = self._most_steps(values) or self._cheaper(values)
        if proposal is None:
            return None
        for name, direction, end in self._notches():
            while self._too_cheap(proposal) and proposal.values[name] != end:
                repaired = self._most_steps({**proposal.values, name: proposal.values[name] + direction})
                if repaired is None:
                    break
                proposal = repaired
        return proposal

    @property
    def cheapest(self) -> Proposal:
        """The fewest steps of the setting with every knob where it costs least, within the budget or not."""
        ends = {name: end for name, _, end in self._notches(upwards=False)}
        return self._at({**self.space.recipes[0].values, **ends}, self.least_steps or self._fewest)

    def allows(self, policy: Policy) -> bool:
        """Whether a policy is within the budget."""
        return self.limits.allow(self.price(policy))

    def price(self, policy: Policy) -> Cost:
        """The exact price of a policy, within the budget or not."""
        return self._priced({}, policy).cost

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

    def _notches(self, *, upwards: bool = True) -> list[tuple[str, int, int]]:
        """Knob, direction and end of what makes a setting cost more, or with ``upwards`` False less."""
        bounds = {knob.name: (knob.low, knob.high) for knob in self.space.knobs}
        towards = [(name, direction if upwards else -direction) for name, direction in self.space.repair_order]
        return [(name, direction, bounds[name][direction > 0]) for name, direction in towards]

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

    def _cheaper(self, values: Mapping[str, int]) -> Proposal | None:
        """A setting near ``values`` that the budget pays for at the fewest steps, if there is one.

        What saves already saves more, all such knobs in turn, a notch each; then every knob that saves by a notch
        does, and at last every knob, for some save only together.
        """
        if self.least_steps is None:
            return None
        least, cheaper = self.least_steps, self._notches(upwards=False)
        ends = {name: end for name, _, end in self._notches()}
        saving = [notch for notch in cheaper if values[notch[0]] != ends[notch[0]]]
        proposal = self._at(values, least)
        for notches, blindly in ((saving, False), (cheaper, False), (cheaper, True)):
            moving = True
            while moving:
                moving = False
                for name, direction, end in notches:
                    if proposal.values[name] == end:
                        continue
                    moved = self._at({**proposal.values, name: proposal.values[name] + direction}, least)
                    if blindly or self.limits.used(moved.cost) < self.limits.used(proposal.cost):
                        proposal, moving = moved, True
                    if self.limits.allow(proposal.cost):
                        return self._most_steps(proposal.values)
        return None

    def _most_steps(self, values: Mapping[str, int]) -> Proposal | None:
        none = (self.least_steps or self._fewest) - 1
        affordable, too_many = none, self.max_steps + 1
        while too_many - affordable > 1:
            middle = (affordable + too_many) // 2
            if self.limits.allow(self._at(values, middle).cost):
                affordable = middle
            else:
                too_many = middle
        # Rounding of the knobs to whole steps makes prices dip here and there: look past the bisection's end.
        while affordable < self.max_steps and self.limits.allow(self._at(values, affordable + 1).cost):
            affordable += 1
        return self._at(values, affordable) if affordable > none else None

    def _at(self, values: Mapping[str, int], steps: int) -> Proposal:
        return self._priced(values, self.space.policy(values, steps))

    def _priced(self, values: Mapping[str, int], policy: Policy) -> Proposal:
        policy = policy.model_copy(update={"model": self._model})
        if policy.key not in self._prices:
            self._prices[policy.key] = self._price(policy)
        return Proposal(dict(values), policy, self._prices[policy.key])
