"""Whether a candidate beats fewer steps on held-out pictures, and whether more of them could still tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from autotune.core.interval import Interval
from autotune.policy import Policy
from autotune.quality.sequential import HOPELESS, OUT_OF_IT, Look, chance_below, promise

if TYPE_CHECKING:
    from autotune import quality
    from autotune.evaluation.evaluator import Evaluator
    from autotune.quality import Evaluation

NO_WORSE = 0.02
"""The second opinion agrees where the 95 % interval of its difference lies below this: it finds a candidate better, or
sees no loss above a fiftieth of what coarse pictures lose.

It guards against judges that are fooled. A judge before whom both policies are nearly exact cannot find either better,
and has no reason to object.
"""


class Opinion(Protocol):
    """A judge of the same held-out pictures that the search did not ask."""

    @property
    def name(self) -> str: ...

    @property
    def objective(self) -> quality.Objective: ...


@dataclass(frozen=True)
class Ruling:
    """What judges say of the best candidate against fewer steps.

    Attributes:
        difference: Loss of the best candidate minus that of fewer steps, with an interval that allows for the choice;
            None where no candidate's error is below the ceiling.
        second: The same by the second opinion; None where nobody else was asked.
        better: Whether the candidate is better beyond doubt, and the second opinion agrees.
    """

    difference: Interval | None
    second: Interval | None
    better: bool

    def hopeless(self, look: Look, last: Look) -> bool:
        """Whether more pictures can hardly make the candidate the better one.

        Args:
            look: What this was seen at.
            last: What will have been seen in the end.
        """
        if self.better:
            return False
        if self.difference is None or promise(self.difference, look, last) < HOPELESS:
            return True
        return self.second is not None and promise(self.second, look, last, NO_WORSE) < HOPELESS


def is_feasible(evaluator: Evaluator, policy: Policy) -> bool:
    """Whether the policy's error is no larger than the panel allows."""
    objective = evaluator.objective
    return objective.feasible(objective.score(evaluator.outcome(policy).evaluation).error)


def rule(
    evaluator: Evaluator,
    candidates: Sequence[Policy],
    fewer_steps: Policy,
    second: Opinion | None = None,
    level: float = 0.95,
    dropped: Sequence[Evaluation] = (),
) -> Ruling:
    """Compare the best candidate whose error is below the ceiling with fewer steps.

    Args:
        evaluator: Holds inputs and seeds that the search has not seen.
        candidates: The best of the search.
        fewer_steps: Their rival.
        second: Must find the best candidate better, too, or no worse; its judge is one that the evaluator measures.
        level: Of the intervals.
        dropped: What was seen of candidates that there were besides.
    """
    allowed = [policy for policy in candidates if is_feasible(evaluator, policy)]
    if not allowed:
        return Ruling(None, None, False)
    *finalists, rival = (evaluator.outcome(policy).evaluation for policy in (*allowed, fewer_steps))
    verdict = evaluator.objective.verdict(finalists, rival, level=level, dropped=dropped)
    if second is None:
        return Ruling(verdict.difference, None, verdict.better)
    other = second.objective.verdict(finalists, rival, best=verdict.best, level=level, dropped=dropped).difference
    return Ruling(verdict.difference, other, verdict.better and other.high < NO_WORSE)


def out_of_the_running(evaluator: Evaluator, candidates: Sequence[Policy], look: Look, last: Look) -> list[Policy]:
    """The candidates that can hardly turn out to be the best, those with an error above the ceiling among them.

    Where no candidate's error is below the ceiling there is no best, and none is out.

    Args:
        evaluator: Of the pictures that were looked at.
        candidates: All that were.
        look: At these pictures.
        last: At all there will be.
    """
    objective = evaluator.objective
    seen = {policy.key: evaluator.outcome(policy).evaluation for policy in candidates}
    allowed = [policy for policy in candidates if is_feasible(evaluator, policy)]
    if not allowed:
        return []
    best = min(allowed, key=lambda policy: objective.score(seen[policy.key]).loss)

    def may_be_best(policy: Policy) -> bool:
        behind = objective.verdict([seen[policy.key]], seen[best.key], level=look.level).difference
        return chance_below(behind, look, last) >= OUT_OF_IT

    return [each for each in candidates if each != best and not (each in allowed and may_be_best(each))]
