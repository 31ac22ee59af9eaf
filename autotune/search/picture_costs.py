"""What a candidate's pictures took besides their price: what was spared, and what exact runs were made for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autotune.cost import Cost
from autotune.evaluation.exact_runs import ExactRuns
from autotune.policy import Policy
from autotune.runtime.prefix.checkpoints import PrefixCache


@dataclass(frozen=True)
class PictureCosts:
    """Counts FLOPs.

    Attributes:
        prefixes: What lets calls go on from where others that began alike stood; None where nothing does.
        exact_runs: Of the evaluator.
        price: Of a policy.
        first_calls: FLOPs of the first so many denoiser calls of a policy, for one picture.
    """

    prefixes: PrefixCache | None
    exact_runs: ExactRuns
    price: Callable[[Policy], Cost]
    first_calls: Callable[[Policy, int], int]

    def take(self, policy: Policy) -> tuple[int, int]:
        """Since this was last asked: FLOPs that the policy's pictures were spared, and those spent on exact runs."""
        uses = () if self.prefixes is None else self.prefixes.take_uses()

        def spared(policy: Policy) -> int:
            return sum(self.first_calls(policy, use.skipped) * use.pictures for use in uses if use.policy == policy.key)

        made = self.exact_runs.take_made()
        return spared(policy), sum(self.price(exact).flops * pictures - spared(exact) for exact, pictures in made)
