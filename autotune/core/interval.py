"""A measured value and how sure it is."""

from __future__ import annotations

from autotune.core.records import Record

# Six digits are more than an interval's own width warrants, and keep files readable.
_DIGITS = 6


class Interval(Record):
    """A measured value with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the sign is beyond doubt."""
        return self.low > 0 or self.high < 0

    def rounded(self) -> Interval:
        """The same as files hold it."""
        return Interval(value=round(self.value, _DIGITS), low=round(self.low, _DIGITS), high=round(self.high, _DIGITS))


NOTHING = Interval(value=0.0, low=0.0, high=0.0)
"""Of what was compared with itself."""
