"""Random policies for any denoiser: every lever of the language, alone and together."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any, Literal

from autotune.cost import Pricer
from autotune.plan import accepted_scales
from autotune.plan.structure import Structure
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage


def random_policies(
    pricer: Pricer,
    steps: Sequence[int],
    *,
    low: float = 0.0,
    high: float = 1.0,
    scales: Sequence[Fraction] | None = None,
) -> Iterator[Policy]:
    """Endless different policies whose share of the full run's FLOPs lies in [``low``, ``high``], always the same ones.

    Args:
        steps: numbers of steps to choose from.
        scales: of low resolution, by default all that the denoiser takes.
    """
    scales = scales or accepted_scales(pricer.height, pricer.width, pricer.structure.size_multiple)
    scales = () if "resolution" in pricer.refuses else scales
    guided = pricer.guided and "guidance" not in pricer.refuses
    seen: set[str] = set()
    seed = 0
    while True:
        policy = random_policy(pricer.structure, scales, steps, guided, seed)
        seed += 1
        if policy.key not in seen and low <= pricer.price(policy).relative <= high:
            seen.add(policy.key)
            yield policy


def random_policy(
    structure: Structure, scales: Sequence[Fraction], steps: Sequence[int], guided: bool, seed: int
) -> Policy:
    """One policy, the same for the same ``seed``."""
    draw = random.Random(seed)
    count = draw.choice(steps)
    smaller = [float(scale) for scale in scales if scale < 1]
    levers: list[Callable[[], dict[str, Any]]] = [lambda: {"cache": _cache(draw, structure, count)}]
    if smaller and count > 1:
        levers.append(lambda: {"resolution": _stages(draw, smaller, count)})
    if guided:
        levers.append(lambda: {"guidance": _guidance(draw, structure, count)})
    fields: dict[str, Any] = {}
    for lever in draw.sample(levers, draw.randint(0, len(levers))):
        fields |= lever()
    return Policy(steps=count, **_without_clash(fields, structure))


def _stages(draw: random.Random, scales: Sequence[float], steps: int) -> tuple[ResolutionStage, ...]:
    count = min(draw.choice([1, 1, 1, 2]), len(scales), steps - 1)
    ends = sorted(draw.sample(range(1, steps), count))
    handoff: Literal["renoise", "noise_matched"] = draw.choice(["renoise", "noise_matched"])
    return tuple(
        ResolutionStage(scale=scale, until_step=end, handoff=handoff)
        for scale, end in zip(sorted(draw.sample(scales, count)), ends, strict=True)
    )


def _guidance(draw: random.Random, structure: Structure, steps: int) -> Guidance:
    start = draw.choice([0, 0, steps // 4])
    stop = draw.randint(start + 1, steps)
    after = draw.choice(["nothing", "cross_attention"]) if structure.of_kind("cross-attention") else "nothing"
    return Guidance(start_step=start, stop_step=stop, after=after if stop < steps else "nothing")  # type: ignore[arg-type]


def _cache(draw: random.Random, structure: Structure, steps: int) -> tuple[CacheRule, ...]:
    """One to three rules: a part of one kind's units, a single unit, or the residual of a chain of blocks."""
    kinds = sorted({unit.kind for unit in structure.units})
    streams = [unit.name for unit in structure.units if unit.streams]
    free = {unit.name for index, unit in enumerate(structure.units) if index != structure.root}
    rules = []
    for _ in range(draw.randint(1, 3)):
        kind = draw.choice(kinds)
        units = [unit.name for unit in structure.units if unit.kind == kind and unit.name in free]
        mode: Literal["reuse", "residual", "forecast"] = draw.choice(["reuse", "reuse", "forecast", "residual"])
        if mode == "residual":
            units = [name for name in units if name in streams]
        if not units:
            continue
        chosen = draw.sample(units, draw.randint(1, min(len(units), 64)))
        free -= set(chosen)
        rules.append(
            CacheRule(
                units=tuple(chosen),
                mode=mode,
                order=draw.choice([1, 2]) if mode == "forecast" else None,
                compute_steps=_computing(draw, steps),
            )
        )
    return tuple(rules)


def _computing(draw: random.Random, steps: int) -> tuple[int, ...]:
    """Evenly apart, or anyhow."""
    if draw.random() < 0.7:
        return tuple(range(0, steps, draw.randint(2, 5)))
    return tuple(sorted({0, *draw.sample(range(steps), draw.randint(0, steps - 1))}))


def _without_clash(fields: dict[str, Any], structure: Structure) -> dict[str, Any]:
    """Cross-attention that guidance lets stay belongs to no other rule."""
    guidance = fields.get("guidance")
    if guidance is None or guidance.after == "nothing" or "cache" not in fields:
        return fields
    held = {structure.units[index].name for index in structure.of_kind("cross-attention")}
    rules = tuple(rule for rule in fields["cache"] if not held & set(rule.units))
    return fields | {"cache": rules}
