"""Noise levels fitted to a model: for a solver and a number of steps, those that end nearest to the exact run.

Where few steps should lie depends on the model, the guidance and the solver. Published methods find it from a
teacher's trajectory by dynamic programming over errors of single steps (OSS, arXiv 2503.21774; GITS, 2405.11326).
Here the error of the final latents itself is lowered, on a few prompts: first over the skews of the solver's own
levels, then by moving one level at a time. Nothing is assumed of the solver but that it takes a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotune.policy import Policy
from search_spaces.solvers import MOST_SKEW, Solver
from studies.search.polish import Error, Polished, noise_level_shifts, polished

EVALUATIONS = 60
"""Policies whose errors are asked for. With eight pictures each, that is as much as 480 pictures of so many steps."""


def fitted_noise_levels(solver: Solver, steps: int, error: Error, evaluations: int = EVALUATIONS) -> Polished | None:
    """The policy of so many plain steps whose noise levels have the least error; None where the solver takes no list.

    Args:
        solver: Of a search space.
        steps: Number of steps.
        error: Of a policy to the exact run, to be lowered.
        evaluations: Most policies whose error is asked for; at least :data:`search_spaces.solvers.MOST_SKEW` times two.

    Returns:
        What was found; its ``before`` is the error of the solver's own levels.
    """
    if not solver.skews:
        return None
    own: Mapping[str, Any] = {} if solver.choice is None else {"scheduler": solver.choice}
    # Listed in any case, for what is not listed cannot be moved.
    skewed = [
        Policy(steps=steps, **own, **solver.listed(steps, skew))
        for skew in sorted(range(-MOST_SKEW, MOST_SKEW + 1), key=abs)
    ]
    skewed = list({policy.key: policy for policy in skewed}.values())
    errors = [error(policy) for policy in skewed]
    best = skewed[errors.index(min(errors))]
    known = dict(zip((policy.key for policy in skewed), errors, strict=True))

    def remembered(policy: Policy) -> float:
        return known[policy.key] if policy.key in known else error(policy)

    found = polished(best, remembered, noise_level_shifts, max(evaluations - len(skewed) + 1, 1))
    return Polished(found.policy, found.error, errors[0], found.evaluations + len(skewed) - 1)
