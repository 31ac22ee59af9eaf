"""Local search on the explicit schedule of the best candidate, once knobs have led near it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

import optuna
from optuna.trial import FrozenTrial

from autotune.policy import Policy
from autotune.search.evaluate import PLAN
from autotune.search.proposals import Proposer
from autotune.search.study import POLICY, REFINES, digest, evaluated, policy_of, ranked
from search_spaces import moved

# Most draws are over the budget, or were tried before.
_DRAWS = 200
# One move finds the next better schedule, two find what one has to get worse for.
_MOST_MOVES = 2


class Refiner:
    """Queues neighbours of the best candidate so far.

    Args:
        proposer: Prices them; none is over the budget.
        seed: Decides the moves, together with the number of trials there are.
    """

    def __init__(self, proposer: Proposer, seed: int) -> None:
        self._proposer = proposer
        self._seed = seed

    def queue(self, study: optuna.Study) -> bool:
        """Queue a neighbour of the best candidate that the study does not have; False where none was found."""
        best = next(iter(ranked(study)), None)
        if best is None:
            return False
        policy = next(self._neighbours(study, best), None)
        if policy is None:
            return False
        # The knobs it came from stand for it where samplers learn.
        study.enqueue_trial(best.params, user_attrs={REFINES: best.number, POLICY: json.dumps(policy.to_dict())})
        return True

    def _neighbours(self, study: optuna.Study, best: FrozenTrial) -> Iterator[Policy]:
        tried = evaluated(study)
        known = {trial.user_attrs.get(PLAN) for trial in tried}
        draw = random.Random(digest([self._seed, len(tried)]))
        start = self._proposer.space.spelled_out(policy_of(best))
        for _ in range(_DRAWS):
            policy: Policy | None = start
            for _ in range(draw.randint(1, _MOST_MOVES)):
                policy = policy and moved(policy, draw)
            proposal = policy and self._proposer.explicit(policy, best.params)
            if proposal and self._proposer.plan(proposal.policy) not in known:
                yield proposal.policy
