"""What people do by hand, at exactly the FLOPs of a budget.

Every method keeps a free number (an interval, a gate) besides the number of steps, so that some of its settings meet
the budget within two percent. Which of these is best is found on the tuning prompts, as somebody would do by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

from autotune.core.errors import PolicyError
from autotune.cost import Pricer
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from search_spaces.schedule import Schedule
from search_spaces.transformer import TransformerSpace, patterns
from search_spaces.unet import UNetSpace

TOLERANCE = 0.02
"""Share of the budget by which a setting may miss it, either way."""

CANDIDATES = 5
"""Settings of each method that are tried, spread over all that fit."""

UNIFORM, TUNED_STEPS = "fewer steps", "fewer steps, tuned timesteps and solver"
ONE_LINE = "one line: solver and guidance interval"

Settings = Iterator[Policy]


def methods(space: Any, pricer: Pricer, budget: float, most_steps: int) -> dict[str, list[Policy]]:
    """Settings of each method that cost ``budget`` of the full run, within :data:`TOLERANCE`.

    Args:
        space: The model's search space.
        pricer: Of the model.
        budget: Share of the full run's FLOPs.
        most_steps: Most steps that are considered.
    """
    made: Mapping[str, Callable[[int], Settings]] = {
        TransformerSpace: _transformer_methods,
        UNetSpace: _unet_methods,
    }[type(space)](space, pricer)

    def fits(policy: Policy) -> bool:
        try:
            return abs(pricer.price(policy).relative / budget - 1) <= TOLERANCE
        except PolicyError:
            return False

    found = {
        name: [p for n in range(1, most_steps + 1) for p in settings(n) if fits(p)] for name, settings in made.items()
    }
    return {name: spread_out(policies, CANDIDATES) for name, policies in found.items()}


def tuned_steps(space: Any, steps: int, skews: Sequence[int]) -> list[Policy]:
    """Plain steps by every solver of the space, with noise levels of the given skews."""
    plain = space.recipes[0].values
    found = [
        space.policy({**plain, "solver": solver, "skew": skew}, steps)
        for solver in range(len(space.solvers))
        for skew in skews
    ]
    return list({policy.key: policy for policy in found}.values())


def spread_out(policies: Sequence[Policy], count: int) -> list[Policy]:
    """``count`` of them, evenly apart in their order, first and last among them; all where there are no more."""
    if len(policies) <= count:
        return list(policies)
    return [policies[round(number * (len(policies) - 1) / (count - 1))] for number in range(count)]


def evenly(steps: int, count: int) -> tuple[int, ...]:
    """``count`` of the steps, as evenly apart as whole steps allow, the first among them."""
    return tuple(sorted({number * steps // count for number in range(count)}))


def _unet_methods(space: UNetSpace, pricer: Pricer) -> Mapping[str, Callable[[int], Settings]]:
    layers = patterns(pricer.structure, ("self-attention", "feed-forward"))
    cross = patterns(pricer.structure, ("cross-attention",))

    def deep_cache(steps: int) -> Settings:
        for count in range(1, steps):
            yield Policy(steps=steps, cache=(CacheRule(units=space.reusable[-1:], compute_steps=evenly(steps, count)),))

    def postdiff(steps: int) -> Settings:
        return _postdiff(steps, Fraction(1, 2), space.reusable[-1:])

    return {
        "DeepCache": deep_cache,
        "FasterCache's guidance": _rated,
        "PAB-like": lambda steps: _layers(steps, layers, cross, 2),
        "T-GATE": _gated,
        "PostDiff": postdiff,
    }


def _transformer_methods(space: TransformerSpace, pricer: Pricer) -> Mapping[str, Callable[[int], Settings]]:
    return {
        "TaylorSeer": lambda steps: _forecast(steps, (*space.layers, *space.cross_attention)),
        "FasterCache's guidance": _rated,
        "FORA": lambda steps: _layers(steps, space.layers, space.cross_attention, 1),
        "PAB-like": lambda steps: _layers(steps, space.layers, space.cross_attention, 2),
        "T-GATE": _gated,
        "PostDiff": lambda steps: _postdiff(steps, Fraction(3, 4), ()),
    }


def _layers(steps: int, layers: tuple[str, ...], cross: tuple[str, ...], rarer: int) -> Settings:
    """Layers in all blocks reuse what they gave: FORA, or PAB with cross-attention computed ``rarer`` times less."""
    for count in range(1, steps):
        yield Policy(
            steps=steps,
            cache=(
                CacheRule(units=layers, compute_steps=evenly(steps, count)),
                CacheRule(units=cross, compute_steps=evenly(steps, max(count // rarer, 1))),
            ),
        )


def _forecast(steps: int, layers: tuple[str, ...]) -> Settings:
    """TaylorSeer's own schedule (arXiv 2503.06923): the first three steps compute, then every N-th; order 2."""
    for interval in range(2, 9):
        compute = (0, 1, 2, *range(2 + interval, steps, interval))
        if steps > 3:
            yield Policy(steps=steps, cache=(CacheRule(units=layers, compute_steps=compute, mode="forecast", order=2),))


def _rated(steps: int) -> Settings:
    """The unconditional branch every second to fifth step, their difference between (FasterCache, 2410.19355)."""
    for interval in range(2, 6):
        rate = Guidance(start_step=0, stop_step=steps, compute_steps=tuple(range(0, steps, interval)))
        if steps > interval:
            yield Policy(version=3, steps=steps, guidance=rate)


def _gated(steps: int) -> Settings:
    """After the gate there is no guidance, and cross-attention stays what it was (T-GATE, arXiv 2404.02747)."""
    for stop in range(1, steps):
        yield Policy(steps=steps, guidance=Guidance(start_step=0, stop_step=stop, after="cross_attention"))


def _postdiff(steps: int, scale: Fraction, deep: tuple[str, ...]) -> Settings:
    """The paper's mix (ICCV 2025, section 4): low resolution for a half or a fifth, cache interval 2, then a gate."""
    for share in (Fraction(1, 2), Fraction(1, 5)):
        switch = round(share * steps)
        if not 0 < switch < steps:
            continue
        compute = Schedule(steps, switches=(switch,)).computing_steps(2)
        cache = (CacheRule(units=deep, compute_steps=compute),) if deep and len(compute) < steps else ()
        for stop in range(max(steps // 4, 1), steps):
            yield Policy(
                steps=steps,
                resolution=(ResolutionStage(scale=float(scale), until_step=switch),),
                guidance=Guidance(start_step=0, stop_step=stop, after="cross_attention"),
                cache=cache,
            )
