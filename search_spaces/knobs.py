"""What a search space varies: whole numbers whose order means something."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autotune.core.errors import InputError

__all__ = ["Knob"]


@dataclass(frozen=True)
class Knob:
    """A whole number from ``low`` to ``high``, both included, whose order means something.

    Neighbouring values must stand for similar policies: samplers that know the order need
    far fewer trials than with unordered choices.

    Attributes:
        name: What it is called.
        low: The least value searched.
        high: The greatest value searched.
        description: What it does.
        least: The least value that means something; ``low`` unless given.
        most: The greatest value that means something; ``high`` unless given.
    """

    name: str
    low: int
    high: int
    description: str
    least: int | None = None
    most: int | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise InputError(f"knob {self.name!r}: low {self.low} exceeds high {self.high}; exchange them")

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest value that mean something."""
        return self.low if self.least is None else self.least, self.high if self.most is None else self.most

    def within(self, low: int, high: int) -> Knob:
        """The same knob, searched from ``low`` to ``high``.

        Raises:
            InputError: a bound means nothing, or the first exceeds the second.
        """
        least, most = self.limits
        for bound in (low, high):
            if not least <= bound <= most:
                raise InputError(f"knob {self.name!r} takes values from {least} to {most}, not {bound}")
        return replace(self, low=low, high=high, least=least, most=most)
