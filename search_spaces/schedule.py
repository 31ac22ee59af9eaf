"""When units compute: evenly, from a warm-up on, and again wherever nothing computed before can serve."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise, takewhile

PARTS = 20
"""Points in time are knobs in twentieths of the steps: the same value means the same at any step count."""


def at(twentieths: int, steps: int) -> int:
    """``twentieths`` of ``steps``, rounded to the nearest whole step, half up."""
    return (2 * twentieths * steps + PARTS) // (2 * PARTS)


MOST_COOL_DOWN = 3
"""Steps at the end that a search computes in full, unless it is told to try more."""


def cool_down_of(compute: Collection[int], steps: int) -> set[int]:
    """Computing steps in a row up to the very last step, at most :data:`MOST_COOL_DOWN`; none where that one reuses.

    Example:
        >>> cool_down_of((0, 3, 6, 7), 8)
        {6, 7}
    """
    return set(islice(takewhile(lambda step: step in compute, reversed(range(steps))), MOST_COOL_DOWN))


@dataclass(frozen=True)
class Schedule:
    """What the computing steps of all that is reused in a policy have in common.

    Attributes:
        steps: All steps.
        warm_up: Steps at the beginning that compute all, before the intervals begin.
        cool_down: Steps at the end that compute all: what is reused there is in the picture.
        switches: First steps at another size, growing, where features of the size before cannot serve.
        start: First step with guidance, whose second branch has no features yet.
        late_interval: The interval in force from ``late_start`` on; 0 leaves it as it is.
        late_start: A step.
    """

    steps: int
    warm_up: int = 0
    cool_down: int = 0
    switches: Sequence[int] = ()
    start: int = 0
    late_interval: int = 0
    late_start: int = 0

    def computing_steps(self, interval: int) -> tuple[int, ...]:
        """The steps at which something computes that is reused in between.

        After the warm-up, and again from each switch on, those that lie at least the interval then in force behind the
        last one; where that interval changes, the steps before it count.

        Args:
            interval: Every how many steps, until another is in force.
        """
        compute = set(self._in_full)
        # The intervals start again with each new size.
        for begin, end in pairwise((self._warm, *self.switches, self.steps)):
            last: int | None = None
            for step in range(begin, end):
                gap = self.late_interval if self.late_interval and step >= self.late_start else interval
                if last is None or step - last >= gap:
                    compute.add(step)
                    last = step
        return tuple(sorted(compute))

    def rarer(self, compute: Sequence[int], every: int) -> tuple[int, ...]:
        """Of computing steps every so many-th, counted from each one that computes all; those are among them.

        Args:
            compute: From :meth:`computing_steps`.
            every: 1 takes all of them.
        """
        chosen, since = [], 0
        for step in compute:
            since += 1
            if step in self._in_full or since == every:
                chosen.append(step)
                since = 0
        return tuple(chosen)

    def forecast_order(self, order: int, compute: Sequence[int], read: Collection[int] | None = None) -> int:
        """The order that a forecast ever reaches: one that finds too few computed steps behind it means a lower one.

        Args:
            order: That is asked for.
            compute: The computing steps.
            read: Steps at which anything reads the forecast; None: all that do not compute.
        """
        computing, fresh = set(compute), (0, *self.switches, self.start)
        behind = [
            sum(max(since for since in fresh if since <= step) <= each < step for each in compute)
            for step in (range(self.steps) if read is None else read)
            if step not in computing
        ]
        return min(order, max(behind, default=1) - 1)

    @property
    def _warm(self) -> int:
        return min(self.warm_up, *self.switches[:1], self.steps)

    @property
    def _in_full(self) -> frozenset[int]:
        """Steps that compute all, whatever the intervals say."""
        last = range(max(self.steps - self.cool_down, 0), self.steps)
        return frozenset({0, *range(self._warm), *self.switches, self.start, *last})
