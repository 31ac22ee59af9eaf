"""Which trial stands for others that compute the same."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from autotune.search.repetitions import PLAN, first_of, twin_of
from autotune.study.trials import DESCRIPTION, DUPLICATE_OF, RESULTS, Snapshot

COMPLETE, PRUNED, RUNNING, FAIL = TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.FAIL


def snapshot(*trials: tuple[TrialState, str] | tuple[TrialState, str, int]) -> Snapshot:
    """Trials of a state and a plan; a third says of which other one they are a repetition."""
    made: list[FrozenTrial] = []
    for number, (state, plan, *repeated) in enumerate(trials):
        given: dict[str, Any] = {DESCRIPTION: {PLAN: plan}, RESULTS: {}}
        if repeated:
            given[RESULTS][DUPLICATE_OF] = repeated[0]
        trial = create_trial(state=state, value=0.0 if state is COMPLETE else None, user_attrs=given)
        trial.number = number
        made.append(trial)
    return Snapshot(made)


def test_the_first_scored_trial_of_a_plan_is_found() -> None:
    known = snapshot((FAIL, "a"), (RUNNING, "a"), (COMPLETE, "b"), (COMPLETE, "a", 3), (PRUNED, "a"), (COMPLETE, "a"))
    found = first_of("a", known)
    assert found is not None and found.number == 4
    assert first_of("c", known) is None


@pytest.mark.parametrize(
    ("others", "twin"),
    [
        pytest.param([(RUNNING, "a")], 0, id="one that began sooner"),
        pytest.param([(RUNNING, "b"), (FAIL, "a"), (COMPLETE, "a", 7)], None, id="none that counts"),
        pytest.param([(PRUNED, "a")], 0, id="one that was scored"),
    ],
)
def test_of_two_at_a_time_the_one_that_began_first_counts(others: list[Any], twin: int | None) -> None:
    seen = snapshot(*others, (RUNNING, "a"))
    assert twin_of(len(others), "a", seen) == twin


def test_one_that_began_later_counts_once_it_was_scored() -> None:
    assert twin_of(0, "a", snapshot((RUNNING, "a"), (RUNNING, "a"))) is None
    assert twin_of(0, "a", snapshot((RUNNING, "a"), (COMPLETE, "a"))) == 1
