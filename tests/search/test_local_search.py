from __future__ import annotations

import numpy as np

from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.search.local_search import rescheduled
from autotune.search.sensitivity import Sensitivity, even_progress


def sensitivity(*changes: float) -> Sensitivity:
    return Sensitivity((("up_blocks.1",),), np.array([changes]), even_progress(len(changes)))


def rule(*compute_steps: int) -> CacheRule:
    return CacheRule(units=("up_blocks.1",), mode="forecast", order=1, compute_steps=compute_steps)


def test_outputs_are_computed_where_they_change_most() -> None:
    # Nearly all of the change happens at steps 5 and 6.
    found = rescheduled(Policy(steps=8, cache=(rule(0, 3, 6),)), sensitivity(0, 0.01, 0.01, 0.01, 0.01, 0.5, 0.5, 0.01))
    assert found == Policy(steps=8, cache=(rule(0, 5, 6),))


def test_steps_that_compute_in_any_case_are_among_them() -> None:
    policy = Policy(
        steps=8,
        resolution=(ResolutionStage(scale=0.5, until_step=3),),
        guidance=Guidance(start_step=2, stop_step=6),
        cache=(rule(0, 2, 3, 6),),
    )
    (found,) = rescheduled(policy, sensitivity(*[0.0] + [0.1] * 6 + [0.9])).cache
    assert {0, 2, 3} < set(found.compute_steps)
    assert len(found.compute_steps) == 4
    assert 7 in found.compute_steps


def test_the_way_counts_and_not_the_number_of_steps() -> None:
    """A profile of eight steps serves a policy of sixteen."""
    policy = Policy(steps=16, cache=(rule(0, 8),))
    (found,) = rescheduled(policy, sensitivity(0, 0, 0, 0, 0, 0, 1, 0)).cache
    assert found.compute_steps[1] in (11, 12)
