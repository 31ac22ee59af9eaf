"""The 52 policies a model that judges are compared on: one-liners, recipes, where searches ended, and random ones.

Random policies alone are mostly far apart and easy to rank. Where a judge is fooled is where a search goes, so half of
these are what a search liked, what differs from that by little, or what somebody writes by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autotune.cost import Pricer
from autotune.models.shipped import demo_assets, demo_pipeline
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage, SchedulerChoice, policy_from_dict
from studies.sampling import random_policies
from studies.search.recipes import evenly

POLICIES = 52

Kind = Literal["full run", "plain", "by hand", "guided", "reuse", "recipe", "favourite", "random"]

_RESULTS = Path(__file__).with_name("results")
# Costs of random policies, in turn.
_BINS = ((0.2, 0.24), (0.24, 0.29), (0.29, 0.35), (0.35, 0.42), (0.42, 0.5), (0.5, 0.6), (0.6, 1.0))
_LAYERS, _CROSS = ("**.attn1", "**.ff"), ("**.attn2",)
_DEEP = ("up_blocks.2.resnets.0",)


@dataclass(frozen=True)
class Entry:
    """A policy, where it comes from, and its share of the full run's FLOPs."""

    policy: Policy
    kind: Kind
    share: float


def policies(name: str) -> list[Entry]:
    """The full run first; always the same ones."""
    pipe, assets = demo_pipeline(name), demo_assets(name)
    pricer = Pricer(pipe, full_steps=assets.full_steps)
    found: dict[str, Entry] = {}
    for kind, policy in _in_order(name, pricer, assets.full_steps):
        found.setdefault(policy.key, Entry(policy, kind, pricer.price(policy).relative))
        if len(found) == POLICIES:
            break
    return list(found.values())


def _in_order(name: str, pricer: Pricer, full: int) -> Iterator[tuple[Kind, Policy]]:
    yield "full run", Policy(steps=full)
    for steps in (12, 8, 6, 5, 4):
        yield "plain", Policy(steps=steps)
    of_model = _of_transformer if name == "emoji-dit" else _of_unet
    yield from of_model()
    yield from _guided_here_or_there()
    for policy in favourites(name):
        yield "favourite", policy
    choices = range(full // 4, full + 1)
    bins = [random_policies(pricer, choices, low=low, high=high) for low, high in _BINS]
    while True:
        for each in bins:
            yield "random", next(each)


def favourites(name: str) -> list[Policy]:
    """What a search by distance and alignment alone liked: of 512 policies the best one of each join of levers."""
    lines = (_RESULTS / f"favourites-{name}.jsonl").read_text().splitlines()
    return [policy_from_dict(json.loads(line)) for line in lines]


def _dpm(steps: int, guided: tuple[int, int] | None = None, cache: tuple[CacheRule, ...] = ()) -> Policy:
    return Policy(steps=steps, scheduler=_solver("DPMSolver"), guidance=_guided(guided), cache=cache)


def _solver(name: str) -> SchedulerChoice:
    return SchedulerChoice(name=f"{name}MultistepScheduler")


def _guided(steps: tuple[int, int] | None, gate: bool = False) -> Guidance | None:
    if steps is None:
        return None
    return Guidance(start_step=steps[0], stop_step=steps[1], after="cross_attention" if gate else "nothing")


def _reused(layers: tuple[int, ...], cross: tuple[int, ...]) -> tuple[CacheRule, ...]:
    return (CacheRule(units=_LAYERS, compute_steps=layers), CacheRule(units=_CROSS, compute_steps=cross))


def _gated(steps: int, stop: int, scale: float | None = None, until: int = 0, deep: tuple[int, ...] = ()) -> Policy:
    """T-GATE's gate, with PostDiff's low resolution and DeepCache's reuse where they are given."""
    return Policy(
        steps=steps,
        guidance=_guided((0, stop), gate=True),
        resolution=(ResolutionStage(scale=scale, until_step=until),) if scale else (),
        cache=(CacheRule(units=_DEEP, compute_steps=deep),) if deep else (),
    )


def _guided_here_or_there() -> Iterator[tuple[Kind, Policy]]:
    """Exact runs guided in part, which have no errors, and what a search made of them in fewer steps."""
    for guided in ((0, 10), (2, 8), (3, 17), (5, 10), (6, 14), (8, 12), (8, 18)):
        yield "guided", Policy(steps=20, guidance=_guided(guided))
    for steps, guided in ((12, (5, 9)), (12, (3, 9)), (9, (3, 6))):
        yield "guided", Policy(steps=steps, guidance=_guided(guided))
    yield "guided", _dpm(10, (4, 9))
    yield "guided", _dpm(8, (4, 6))


def _of_transformer() -> Iterator[tuple[Kind, Policy]]:
    yield "by hand", Policy(steps=20, guidance=_guided((7, 16)))
    yield "by hand", _dpm(8)
    yield "by hand", _dpm(11, (3, 8))
    yield "by hand", _dpm(7, (2, 6))
    yield "by hand", _dpm(5)
    yield "by hand", _dpm(6, (2, 5))
    cross = (0, 1, 3, 5, 6, 9)
    for layers in ((0, 2, 5, 6, 9, 12), (0, 2, 5, 6, 9, 12, 14), (0, 2, 5, 6, 9, 12, 13, 14)):
        more = tuple(step for step in layers if step > 12)
        yield "reuse", Policy(steps=15, guidance=_guided((5, 12)), cache=_reused(layers, (*cross, *more)))
    yield "reuse", Policy(steps=15, cache=_reused((0, 2, 5, 6, 9, 12), cross))
    yield "reuse", _dpm(13, (3, 10), _reused(evenly(13, 6), evenly(13, 7)))
    yield "reuse", _dpm(23, (6, 18), _reused(evenly(23, 9), evenly(23, 13)))
    for steps, count in ((22, 5), (35, 8)):
        yield "recipe", Policy(steps=steps, cache=_reused(evenly(steps, count), evenly(steps, count)))
    yield "recipe", Policy(steps=34, cache=_reused(evenly(34, 13), evenly(34, 6)))
    yield "recipe", _gated(6, 5, 0.75, 1)
    yield "recipe", _gated(10, 8, 0.75, 2)
    yield "recipe", _gated(14, 13, 0.75, 3)
    yield "recipe", _gated(8, 3)
    yield "recipe", _gated(11, 6)


def _of_unet() -> Iterator[tuple[Kind, Policy]]:
    yield "by hand", Policy(steps=20, guidance=_guided((6, 19)))
    yield "by hand", Policy(steps=10, guidance=_guided((2, 8)))
    yield "by hand", _dpm(10, (2, 8))
    yield "by hand", _dpm(6, (2, 5))
    yield "by hand", _dpm(8)
    yield "by hand", _dpm(5)
    uni = _solver("UniPC")
    half = (ResolutionStage(scale=0.5, until_step=1),)
    yield "by hand", Policy(steps=9, scheduler=uni, resolution=half, guidance=_guided((2, 8)))
    shallow = (CacheRule(units=("up_blocks.0",), compute_steps=evenly(7, 4)),)
    yield "reuse", Policy(steps=7, scheduler=uni, guidance=_guided((2, 6)), cache=shallow)
    for steps, guided, order in ((14, (4, 13), 1), (13, (4, 11), 2)):
        rule = CacheRule(units=_DEEP, mode="forecast", order=order, compute_steps=tuple(range(0, steps, 2)))
        yield "reuse", Policy(steps=steps, guidance=_guided(guided), cache=(rule,))
    yield "reuse", Policy(steps=15, guidance=_guided((5, 12)), cache=_reused(evenly(15, 6), evenly(15, 6)))
    yield "by hand", Policy(steps=13, resolution=(ResolutionStage(scale=0.5, until_step=7),))
    for steps, count in ((18, 6), (15, 4), (21, 11)):
        yield "recipe", Policy(steps=steps, cache=(CacheRule(units=_DEEP, compute_steps=evenly(steps, count)),))
    yield "recipe", Policy(steps=13, cache=_reused(evenly(13, 8), evenly(13, 4)))
    yield "recipe", _gated(11, 9, 0.5, 2, (0, 2, 4, 6, 8, 10))
    yield "recipe", _gated(6, 4)
    yield "recipe", _gated(9, 7)
