"""Levers: what a policy may do or leave, each off in about half of all draws.

Knobs alone bury simple policies. Where every knob is drawn from its whole range, hardly any draw leaves a lever
alone: of fourteen knobs one or two are at the value that does nothing. A lever therefore has a switch of its own, and
its knobs are drawn only where it is on. Switches exist while a candidate is drawn. A study keeps the values of the
knobs, in which a lever that is off has the values that do nothing.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from search_spaces.knobs import Knob

__all__ = ["Ask", "Lever", "asked", "drawn", "is_on", "nearby"]

Ask = Callable[[str, int, int], int]
"""A whole number between two others, both included, for a name: ``trial.suggest_int`` or a random number."""

_NEAR = 0.75
"""Share of a knob's moves that go no further than two values."""


@dataclass(frozen=True)
class Lever:
    """One thing that a policy may do.

    Attributes:
        name: Of its switch, which no knob has.
        knobs: Names of the knobs that say how it is done.
        essential: Those of the knobs that undo it where any of them does nothing; without any it is undone where all
            its knobs do nothing.
        part_of: Name of the lever, further ahead in the list, that it belongs to and is off with.
        gathers: Whether it is nothing but its parts, and on where any of these is.
        modifies: Whether it is no part that would turn on one that gathers, but changes how the other parts are done.
    """

    name: str
    knobs: tuple[str, ...]
    essential: tuple[str, ...] = ()
    part_of: str | None = None
    gathers: bool = False
    modifies: bool = False


def is_on(lever: Lever, levers: Sequence[Lever], values: Mapping[str, int], plain: Mapping[str, int]) -> bool:
    """Whether knob values pull a lever.

    Args:
        lever: One of the levers.
        levers: All of them.
        values: Of all knobs.
        plain: The values at which knobs do nothing.
    """
    if lever.gathers:
        return any(is_on(part, levers, values, plain) for part in _parts(lever, levers))
    if lever.essential:
        return all(values[name] != plain[name] for name in lever.essential)
    return any(values[name] != plain[name] for name in lever.knobs)


def drawn(
    levers: Sequence[Lever], knobs: Sequence[Knob], plain: Mapping[str, int], ask: Ask, *, conditional: bool = True
) -> dict[str, int]:
    """Ask for switches and, where they are on, for the values of their knobs.

    A lever that the knobs' ranges leave no choice about has no switch.

    Args:
        levers: Each after the one that it is part of.
        knobs: All knobs of a space; those of no lever are asked for in any case.
        plain: The values at which knobs do nothing.
        ask: Is given the names of switches and knobs, each once and always in the same order.
        conditional: Ask for no knob of a lever that is off. Samplers that want the same names in all trials are asked
            for all, and what they say of those is not used.

    Returns:
        A value of every knob.
    """
    ranges = {knob.name: (knob.low, knob.high) for knob in knobs}
    values: dict[str, int] = {}
    pulled: dict[str, bool] = {}
    for lever in levers:
        stays = _can_be_off(lever, levers, ranges, plain)
        possible = pulled.get(lever.part_of, True) if lever.part_of else True
        on = not stays
        if stays and _can_be_on(lever, levers, ranges, plain) and (possible or not conditional):
            on = bool(ask(lever.name, 0, 1))
        pulled[lever.name] = on = on and (possible or not stays)
        for name in lever.knobs:
            low, high = ranges[name]
            nothing = min(max(plain[name], low), high)
            if name in lever.essential:
                low, high = _without(plain[name], low, high)
            value = ask(name, low, high) if on or not conditional else nothing
            values[name] = value if on else nothing
    mine = {name for lever in levers for name in lever.knobs}
    values |= {knob.name: ask(knob.name, knob.low, knob.high) for knob in knobs if knob.name not in mine}
    # One whose knobs happen to do nothing is off, too.
    for lever in levers:
        pulled[lever.name] = is_on(lever, levers, values, plain) and pulled.get(lever.part_of or "", True)
        if not pulled[lever.name]:
            values |= {name: min(max(plain[name], ranges[name][0]), ranges[name][1]) for name in lever.knobs}
    return values


def asked(
    levers: Sequence[Lever],
    knobs: Sequence[Knob],
    plain: Mapping[str, int],
    values: Mapping[str, int],
    *,
    conditional: bool = True,
) -> dict[str, tuple[int, int, int]]:
    """What :func:`drawn` would have asked for to arrive at knob values: of every name the answer and its bounds."""
    answers = {lever.name: int(is_on(lever, levers, values, plain)) for lever in levers} | dict(values)
    found: dict[str, tuple[int, int, int]] = {}

    def answer(name: str, low: int, high: int) -> int:
        value = min(max(answers[name], low), high)
        found[name] = value, low, high
        return value

    drawn(levers, knobs, plain, answer, conditional=conditional)
    return found


def nearby(
    levers: Sequence[Lever],
    knobs: Sequence[Knob],
    plain: Mapping[str, int],
    values: Mapping[str, int],
    draw: random.Random,
) -> dict[str, int]:
    """Knob values after one small change: a lever turned on or off, or one of its knobs moved.

    Args:
        levers: As for :func:`drawn`.
        knobs: All knobs of a space.
        plain: The values at which knobs do nothing.
        values: Of all knobs.
        draw: Decides the change; knobs of a lever that is turned on are drawn from their ranges.
    """
    answers = asked(levers, knobs, plain, values)
    movable = [name for name, (_, low, high) in answers.items() if low < high]
    if not movable:
        return dict(values)
    name = draw.choice(movable)
    value, low, high = answers[name]
    moves = [step for step in (-2, -1, 1, 2) if low <= value + step <= high]
    # Knobs that count nothing, such as the solver's, have no neighbours: any other value may be the better one.
    anywhere = [other - value for other in range(low, high + 1) if other != value]
    kept = {each: answer for each, (answer, _, _) in answers.items()}
    kept[name] = value + draw.choice(moves if draw.random() < _NEAR else anywhere)

    def answer(name: str, low: int, high: int) -> int:
        return min(max(kept[name], low), high) if name in kept else draw.randint(low, high)

    return drawn(levers, knobs, plain, answer)


def _parts(lever: Lever, levers: Sequence[Lever]) -> list[Lever]:
    return [part for part in levers if part.part_of == lever.name and not part.modifies]


def _can_be_on(
    lever: Lever, levers: Sequence[Lever], ranges: Mapping[str, tuple[int, int]], plain: Mapping[str, int]
) -> bool:
    if lever.gathers:
        return any(_can_be_on(part, levers, ranges, plain) for part in _parts(lever, levers))
    movable = [ranges[name] != (plain[name], plain[name]) for name in lever.essential or lever.knobs]
    return all(movable) if lever.essential else any(movable)


def _can_be_off(
    lever: Lever, levers: Sequence[Lever], ranges: Mapping[str, tuple[int, int]], plain: Mapping[str, int]
) -> bool:
    if lever.gathers:
        return all(_can_be_off(part, levers, ranges, plain) for part in _parts(lever, levers))
    idle = [ranges[name][0] <= plain[name] <= ranges[name][1] for name in lever.essential or lever.knobs]
    return any(idle) if lever.essential else all(idle)


def _without(value: int, low: int, high: int) -> tuple[int, int]:
    """The range without one of its ends, where that is ``value``."""
    if low == value < high:
        return low + 1, high
    return (low, high - 1) if low < value == high else (low, high)
