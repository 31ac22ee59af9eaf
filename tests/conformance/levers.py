"""Everything that a search space can do to a policy: the knobs that ask for it, and how a policy shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from autotune.policy import Guidance, Policy
from search_spaces.denoiser import DenoiserSpace


@dataclass(frozen=True)
class Lever:
    """One thing that a policy can do.

    Attributes:
        knobs: What asks for it.
        shown: Whether a policy does it.
    """

    knobs: Mapping[str, int]
    shown: Callable[[Policy], bool]


def levers(space: DenoiserSpace) -> dict[str, Lever]:
    """What a space offers, by name: all that its knobs and their ranges allow."""
    ranges = {knob.name: range(knob.low, knob.high + 1) for knob in space.knobs}
    found = {}
    for name, lever in _known(space):
        knobs = {knob: value for knob, value in lever.knobs.items() if knob in ranges}
        if knobs and all(value in ranges[knob] for knob, value in knobs.items()):
            found[name] = Lever({**space.recipes[0].values, **knobs}, lever.shown)
    return found


def all_at_once(space: DenoiserSpace) -> dict[str, int]:
    """A setting of all knobs but the solver in which each does something, as far as its range allows.

    But for those that would leave the few steps of a test nothing to reuse: a size between, a second window, a
    cool-down.
    """
    wanted = {
        "scale": _half(space), "switch": 6, "handoff": 1, "middle": 0, "depth": 99, "interval": 2, "first_block": 1,
        "blocks": 2, "block_interval": 2, "layer_interval": 2, "forecast": 1, "cross_interval": 3, "warm_up": 1,
        "cool_down": 0, "late_interval": 0, "late_start": 10, "second_depth": 1, "second_interval": 2,
        "guidance_start": 3, "guidance_stop": 14, "guidance_factor": 6, "gate": 1, "skew": 2,
    }  # fmt: skip
    return {knob.name: min(max(wanted[knob.name], knob.low), knob.high) for knob in space.knobs if knob.name in wanted}


def _known(space: DenoiserSpace) -> Iterator[tuple[str, Lever]]:
    """All levers of all spaces; those of other spaces' knobs have no effect in this one."""
    for index, handoff in enumerate(("renoise", "noise_matched")):
        small = {"scale": _half(space), "switch": 8, "handoff": index}
        yield f"small first, {handoff}", Lever(small, partial(_begins_small, handoff))
    between = [index for index in range(len(space.scales)) if space.middle(index) is not None]
    if between:
        growing = {"scale": min(between, key=lambda index: abs(index - _half(space))), "switch": 6, "middle": 6}
        yield "small, then larger first", Lever(growing, lambda policy: len(policy.resolution) == 2)
    for depth, unit in enumerate(getattr(space, "reusable", ()), 1):
        yield f"reuse of {unit}", Lever({"depth": depth, "interval": 2}, partial(_reuses, (unit,)))
    layers, cross = getattr(space, "layers", ()), getattr(space, "cross_attention", ())
    yield "reuse of layers", Lever({"layer_interval": 2}, partial(_reuses, layers))
    yield "reuse of cross-attention", Lever({"cross_interval": 2}, partial(_reuses, cross))
    blocks = {"first_block": 1, "blocks": 2, "block_interval": 2}
    yield "residual of blocks", Lever(blocks, partial(_caches, "residual"))
    every_second = {"depth": 1, "interval": 2, "layer_interval": 2, "warm_up": 0}
    yield "forecast", Lever({**every_second, "forecast": 1}, partial(_caches, "forecast"))
    outermost = len(getattr(space, "reusable", ()))
    every_third = {"depth": outermost, "interval": 3, "layer_interval": 3, "block_interval": 3, "blocks": 1}
    yield "last step computed", Lever({**every_third, "cool_down": 1}, partial(_computes_last, 1))
    # Less guidance pays for the step more that a second window takes: image-to-image has few.
    guided = any(knob.name == "guidance_stop" and knob.low <= 10 for knob in space.knobs)
    second = {**every_third, "late_interval": 1} | ({"guidance_stop": 10} if guided else {})
    yield "second window", Lever(second, partial(_computes_last, 2))
    deeper = {"depth": 2, "interval": 2, "second_depth": 1, "second_interval": 2}
    if outermost:
        yield "reuse at two depths", Lever(deeper, lambda policy: len(policy.cache) == 2)
    yield "guidance begins late", Lever({"guidance_start": 5}, lambda policy: _guidance(policy).start_step > 0)
    yield "guidance ends early", Lever({"guidance_stop": 12}, lambda policy: _guidance(policy).stop_step < policy.steps)
    stronger = {"guidance_stop": 12, "guidance_factor": 6}
    yield "guidance multiplied", Lever(stronger, lambda policy: _guidance(policy).factor == 1.5)
    gated = {"guidance_stop": 10, "gate": 1}
    yield "gate", Lever(gated, lambda policy: _guidance(policy).after == "cross_attention")
    skewing = next((index for index, solver in enumerate(space.solvers) if solver.skews), 0)
    high, low = {"solver": skewing, "skew": -2}, {"solver": skewing, "skew": 2}
    yield "more high noise", Lever(high, lambda policy: _lower_noise(policy, space) < 0)
    yield "more low noise", Lever(low, lambda policy: _lower_noise(policy, space) > 0)
    for index, solver in enumerate(space.solvers):
        yield f"by {solver.name}", Lever({"solver": index}, partial(_is_solved_by, solver.choice))


def _half(space: DenoiserSpace) -> int:
    """The index of the scale that is nearest to half the size."""
    return min(range(len(space.scales)), key=lambda index: abs(space.scales[index] - 0.5))


def _begins_small(handoff: str, policy: Policy) -> bool:
    return any(stage.handoff == handoff for stage in policy.resolution)


def _reuses(units: tuple[str, ...], policy: Policy) -> bool:
    return any(rule.units == units and rule.mode != "residual" for rule in policy.cache)


def _caches(mode: str, policy: Policy) -> bool:
    return any(rule.mode == mode for rule in policy.cache)


def _computes_last(count: int, policy: Policy) -> bool:
    last = set(range(policy.steps - count, policy.steps))
    return any(last <= set(rule.compute_steps) for rule in policy.cache)


def _guidance(policy: Policy) -> Guidance:
    return policy.guidance or Guidance(stop_step=policy.steps)


def _is_solved_by(choice: object, policy: Policy) -> bool:
    return policy.scheduler == choice


def _lower_noise(policy: Policy, space: DenoiserSpace) -> float:
    """By how much the policy's noise levels, summed up, are below those that its solver takes itself."""
    solver = next(solver for solver in space.solvers if solver.choice == policy.scheduler)
    own = solver.listed(policy.steps)
    if policy.sigmas is not None:
        return sum(own["sigmas"]) - sum(policy.sigmas)
    return 0 if isinstance(policy.timesteps, str) else sum(own["timesteps"]) - sum(policy.timesteps)
