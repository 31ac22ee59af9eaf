"""Knobs that came later: what studies that do not have them are taken to say of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

__all__ = ["PLAIN_OF_LATER", "are_as_before", "completed"]

PLAIN_OF_LATER: Mapping[str, int] = {
    "middle": 0,
    "cool_down": 0,
    "late_interval": 0,
    "late_start": 10,
    "second_depth": 0,
    "second_interval": 1,
    "guidance_factor": 4,
}
"""By the names of such knobs the value that does nothing, which is what a policy from before does."""


def completed(values: Mapping[str, int], names: Collection[str]) -> dict[str, int]:
    """Knob values with those that do nothing for knobs that came later; ``values`` where others are missing besides.

    Args:
        values: By names of knobs.
        names: Of all knobs there are.

    Example:
        >>> completed({"depth": 2}, ["depth", "cool_down"])
        {'depth': 2, 'cool_down': 0}
    """
    missing = [name for name in names if name not in values]
    if not all(name in PLAIN_OF_LATER for name in missing):
        return dict(values)
    return {**values, **{name: PLAIN_OF_LATER[name] for name in missing}}


def are_as_before(before: Sequence[str], now: Sequence[str]) -> bool:
    """Whether candidates of two spaces mix: knobs are the same, but for later ones that may do nothing.

    Args:
        before: A line ``name low..high`` for every knob that a study was made with.
        now: The same of this search.

    Example:
        >>> are_as_before(["depth 0..4"], ["depth 0..4", "cool_down 0..3"])
        True
        >>> are_as_before(["depth 0..4"], ["depth 0..4", "cool_down 1..3"])
        False
    """
    had = {_name(line) for line in before}
    return list(before) == [line for line in now if _name(line) in had or not _may_do_nothing(line)]


def _name(line: str) -> str:
    return line.rpartition(" ")[0]


def _may_do_nothing(line: str) -> bool:
    name, _, between = line.rpartition(" ")
    low, _, high = between.partition("..")
    return name in PLAIN_OF_LATER and int(low) <= PLAIN_OF_LATER[name] <= int(high)
