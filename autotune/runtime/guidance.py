"""Which branches of guidance a call of the denoiser computes, and what stands in for those that it does not."""

from __future__ import annotations

from typing import Any

from autotune.plan import DenoiserCall, Guided
from autotune.runtime.branches import Difference, joined, parted, twice
from autotune.runtime.call import CallState


def guidance_in(call: CallState, step: DenoiserCall, rows: int) -> Guided:
    """What a call of the denoiser computes of guidance's branches, of ``rows`` rows each.

    By the policy and not by the plan: guidance that a pipeline's call begins without may be turned on in the middle of
    it. Where nobody has computed the difference of so many rows, both branches are computed.
    """
    if step.guidance is not Guided.DIFFERENCE:
        return step.guidance
    return Guided.DIFFERENCE if call.difference is not None and call.difference.rows == rows else Guided.BOTH


def unconditional(call: CallState, conditional: Any, guidance: Guided, factor: float) -> Any:
    """What stands in for the unconditional branch's output."""
    if guidance is Guided.CONDITIONAL:
        return conditional
    assert call.difference is not None
    return call.difference.unconditional(conditional, factor)


def both(
    call: CallState, conditional: Any, guidance: Guided, factor: float, *, conditional_first: bool, listed: bool
) -> Any:
    """The output for both branches in one batch, where the conditional one alone was computed."""
    if guidance is Guided.CONDITIONAL:
        return twice(conditional, listed=listed)
    other = unconditional(call, conditional, guidance, factor)
    return _stacked(conditional, other, conditional_first=conditional_first, listed=listed)


def multiplied(output: Any, difference: Difference, factor: float, *, conditional_first: bool, listed: bool) -> Any:
    """The output for both branches in one batch, with ``factor`` times their difference."""
    first, last = parted(output, listed=listed)
    conditional = first if conditional_first else last
    other = difference.unconditional(conditional, factor)
    return _stacked(conditional, other, conditional_first=conditional_first, listed=listed)


def difference_in(output: Any, rows: int, *, conditional_first: bool, listed: bool) -> Difference:
    """The difference of the branches in the output for both, of ``rows`` rows each, in one batch."""
    first, last = parted(output, listed=listed)
    return Difference.of(first, last, rows) if conditional_first else Difference.of(last, first, rows)


def _stacked(conditional: Any, other: Any, *, conditional_first: bool, listed: bool) -> Any:
    return joined(*((conditional, other) if conditional_first else (other, conditional)), listed=listed)
