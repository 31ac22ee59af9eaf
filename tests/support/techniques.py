"""Policies that exercise every technique on whatever units a denoiser has."""

from __future__ import annotations

from typing import Any, Literal

from autotune.pipelines.units import find_units
from autotune.plan.structure import Structure, Unit
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from tests.support.builders import TinyFamily

STEPS = 5
# Computed in steps 0, 2, 3: what is kept is taken in 1 and 4, then with two points for a forecast.
COMPUTE = (0, 2, 3)
EVERY = tuple(range(STEPS))
HANDOFFS: tuple[Literal["renoise", "noise_matched"], ...] = ("renoise", "noise_matched")


RESIDUAL_FORECAST = "forecast of a residual"
WEIGHTED, WEIGHTED_RESIDUAL = "weighted forecast", "weighted residual"
# Of steps 1 and 4, which sum to anything but 1.
WEIGHTS = ((0.9,), (1.4, -0.3))
RESIDUAL_RANGE, CROSS_ATTENTION = "residual of a range", "guidance stops, cross-attention stays"
UNGUIDED = (
    "nothing",
    "reuse layers",
    "reuse a block",
    "reuse nearly all",
    "forecast",
    "second-order forecast",
    "residual",
    RESIDUAL_RANGE,
    RESIDUAL_FORECAST,
    WEIGHTED,
    WEIGHTED_RESIDUAL,
    "half size, renoise",
    "half size, noise_matched",
    "two stages",
    "everything",
)
FACTOR = "more guidance in the middle"
RATE, RATE_AND_ALL = "guidance every second step", "guidance every second step, and everything"
GUIDED = ("guidance stops", "guidance in the middle", FACTOR, CROSS_ATTENTION, RATE, RATE_AND_ALL)


def names(family: TinyFamily) -> tuple[str, ...]:
    """Of the techniques those that the family may have, known without building it."""
    return UNGUIDED + GUIDED if family.guided else UNGUIDED


def technique(name: str, family: TinyFamily, structure: Structure) -> Policy | None:
    """The policy of that name for a denoiser, None where it has no such units or the pipeline refuses it."""
    last = _reusable(structure)[-1]
    blocks = [unit.name for unit in structure.units if unit.streams]
    middle = blocks[len(blocks) // 2]
    ranges = _ranges(blocks)
    half = {handoff: ResolutionStage(scale=0.5, until_step=3, handoff=handoff) for handoff in HANDOFFS}
    everything: dict = {
        "resolution": [ResolutionStage(scale=0.5, until_step=2, handoff="noise_matched")],
        "cache": [_rule([last], mode="forecast", order=1, compute_steps=(0, 2, 3))],
        "guidance": Guidance(start_step=1, stop_step=4) if family.guided else None,
    }
    everything = {field: value for field, value in everything.items() if field not in family.refuses}
    fields: dict[str, dict | None] = {
        "nothing": {},
        "reuse layers": {"cache": [_rule(_layers(structure))]},
        "reuse a block": {"cache": [_rule([middle])]},
        "reuse nearly all": {"cache": [_rule([last])]},
        "forecast": {"cache": [_rule([last], mode="forecast", order=1)]},
        "second-order forecast": {"cache": [_rule([last], mode="forecast", order=2, compute_steps=(0, 1, 2))]},
        "residual": {"cache": [_rule([middle], mode="residual")]},
        RESIDUAL_RANGE: {"cache": [_rule([ranges[0]], mode="residual")]} if ranges else None,
        RESIDUAL_FORECAST: {"version": 2, "cache": [_rule([middle], mode="residual", order=1)]},
        WEIGHTED: {"version": 3, "cache": [_rule([last], mode="forecast", weights=WEIGHTS)]},
        WEIGHTED_RESIDUAL: {"version": 3, "cache": [_rule([middle], mode="residual", weights=WEIGHTS)]},
        "half size, renoise": {"resolution": [half["renoise"]]},
        "half size, noise_matched": {"resolution": [half["noise_matched"]]},
        "two stages": {
            "resolution": [ResolutionStage(scale=0.5, until_step=2), ResolutionStage(scale=0.75, until_step=3)]
        },
        "everything": everything,
        "guidance stops": {"guidance": Guidance(stop_step=3)},
        "guidance in the middle": {"guidance": Guidance(start_step=1, stop_step=4)},
        CROSS_ATTENTION: (
            {"guidance": Guidance(stop_step=2, after="cross_attention")}
            if structure.of_kind("cross-attention")
            else None
        ),
    }
    fields[RATE] = {"version": 3, "guidance": Guidance(stop_step=STEPS, compute_steps=(0, 2, 4))}
    # At the new size, in step 2, both branches are computed all the same.
    reused = Guidance(start_step=1, stop_step=5, compute_steps=(1, 4), factor=0.75)
    fields[RATE_AND_ALL] = everything | {"version": 4, "guidance": reused}
    fields[FACTOR] = {"version": 4, "guidance": Guidance(start_step=1, stop_step=4, factor=1.5)}
    chosen = fields[name]
    return None if chosen is None or chosen.keys() & family.refuses else Policy(steps=STEPS, **chosen)


def every_step(structure: Structure) -> Policy:
    """A policy with hooks everywhere that computes everything all the same."""
    return Policy(steps=STEPS, cache=(_rule(_reusable(structure), compute_steps=EVERY),))


def structure_of(family: TinyFamily, pipe: object) -> Structure:
    return find_units(getattr(pipe, family.denoiser))


def _rule(units: list[str], mode: Any = "reuse", **fields: Any) -> CacheRule:
    return CacheRule(units=tuple(units), mode=mode, **({"compute_steps": COMPUTE} | fields))


def _layers(structure: Structure) -> list[str]:
    """One layer of every kind, none of which makes all others of no use."""
    by_kind: dict[str, list[str]] = {}
    for index, unit in enumerate(structure.units):
        if unit.kind != "block" and index != structure.root:
            by_kind.setdefault(unit.kind, []).append(unit.name)
    return [names[len(names) // 2] for names in by_kind.values()]


def _reusable(structure: Structure) -> list[str]:
    """Blocks and layers, as many as a rule may name."""
    names = [block.name for block in structure.blocks] or [unit.name for unit in structure.units if _is_outer(unit)]
    return names[-64:]


def _is_outer(unit: Unit) -> bool:
    return unit.kind == "block"


def _ranges(blocks: list[str]) -> list[str]:
    """``chain.1-2`` for every chain of at least four blocks."""
    chains = [name.rpartition(".")[0] for name in blocks]
    return [f"{chain}.1-2" for chain in dict.fromkeys(chains) if chains.count(chain) >= 4 and f"{chain}.2" in blocks]
