"""Local search around the best candidates.

Two candidates of three are what a person would try next: the best policy of solver, noise levels and guidance alone,
with stronger guidance, then with guidance from a step earlier or later on, or as far. When it runs decides most on both
shipped models, recipes have four intervals and a grid by hand has thirty, and one of its two ends is seldom what a
random move changes. The others turn levers on and off, move knobs, and change single decisions of a schedule.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Iterator
from functools import cache
from itertools import chain, islice

import numpy as np
from optuna.trial import FrozenTrial

from autotune.core.fingerprint import digest
from autotune.policy import CacheRule, Policy
from autotune.search.proposer import Proposal, Proposer
from autotune.search.repetitions import plans_of
from autotune.search.sensitivity import Sensitivity, best_compute_steps, even_progress, progress_of
from autotune.study.candidate import Candidate
from autotune.study.trials import REFINES, Trials, evaluated, policy_of, ranked, refining
from search_spaces import moved
from search_spaces.earlier import completed
from search_spaces.schedule import cool_down_of

Units = tuple[tuple[str, ...], ...]
Neighbour = tuple[Candidate, Proposal]

_NOISE_LEVELS = ("timesteps", "sigmas")
# Most draws are over the budget, or were tried before.
_DRAWS = 200
# One move finds the next better schedule, two find what one has to get worse for.
_MOST_MOVES = 2

ORIGINS = 3
"""Candidates whose neighbours are tried, the better the more often: chance decides which of the first few is best."""

# The last of so many candidates is another neighbour than one by guidance.
_OF_GUIDANCE = 3

_KNOBS = 0.5
"""Share of the neighbours that differ in their knobs, with as many steps as the budget then pays for."""


class Refiner:
    """Proposes neighbours of the best candidates so far.

    Args:
        proposer: Prices them; none is over the budget.
        seed: Decides the moves, together with the number of trials there are.
        measure: How outputs of units, one row for each cache rule's, change along the full run. Where it is given,
            the schedule by dynamic programming is the first neighbour of a candidate.
    """

    def __init__(self, proposer: Proposer, seed: int, measure: Callable[[Units], Sensitivity] | None = None) -> None:
        self._proposer = proposer
        self._seed = seed
        self._measure = measure
        self._measured: dict[Units, Sensitivity] = {}

    def candidate(self, study: Trials) -> Candidate | None:
        """A neighbour of one of the best candidates that the study does not have; None where none was found.

        Where its schedule was changed, the knobs that it came from stand for it where samplers learn.
        """
        origins = ranked(study)[:ORIGINS]
        if not origins:
            return None
        tried = evaluated(study)
        known = plans_of(study)
        if (len(tried) + 1) % _OF_GUIDANCE and (candidate := self._of_guidance(study, known)) is not None:
            return candidate
        draw = random.Random(digest([self._seed, len(tried)]))
        for _ in range(_DRAWS):
            # Half as often each as the one before it.
            (origin,) = draw.choices(origins, [2.0**-place for place in range(len(origins))])
            neighbour = self._of_knobs if draw.random() < _KNOBS else self._of_schedule
            for candidate, proposal in neighbour(origin, draw):
                if self._proposer.plan(proposal.policy) not in known:
                    return candidate
        return None

    def _of_guidance(self, study: Trials, known: Container[str | None]) -> Candidate | None:
        """The best simple policies with other guidance; None where all that is near was tried."""
        space = self._proposer.space
        simple = {*space.of_steps, *space.of_guidance}
        of_knobs = (origin for origin in ranked(study) if REFINES not in origin.user_attrs)
        origins = (origin for origin in of_knobs if space.changed(self._knobs_of(origin)).keys() <= simple)
        best = [(self._knobs_of(origin), policy_of(origin).steps) for origin in islice(origins, ORIGINS)]
        # One candidate says whether stronger guidance is better here; when it runs takes many.
        first = (space.stronger(*each) for each in best[:1])
        for values in chain.from_iterable(chain(first, (space.other_intervals(*each) for each in best))):
            # Fewer steps are tried however the ranges were narrowed, and may lie outside.
            within = all(knob.low <= values[knob.name] <= knob.high for knob in space.knobs)
            proposal = self._proposer.propose(values) if within else None
            if proposal is not None and self._proposer.plan(proposal.policy) not in known:
                return Candidate(proposal.values)
        return None

    def _of_knobs(self, origin: FrozenTrial, draw: random.Random) -> Iterator[Neighbour]:
        """One change of its knobs, at the budget."""
        proposal = self._proposer.propose(self._proposer.space.nearby(self._knobs_of(origin), draw))
        if proposal is not None:
            yield Candidate(proposal.values), proposal

    def _of_schedule(self, origin: FrozenTrial, draw: random.Random) -> Iterator[Neighbour]:
        """One or two changes of its schedule, which no knobs stand for."""
        policy, values = policy_of(origin), self._knobs_of(origin)
        for changed in self._schedules(policy, draw):
            proposal = self._proposer.explicit(changed, values)
            if proposal is not None:
                # As it will be evaluated.
                yield Candidate(values, user_attrs=refining(origin.number, proposal.policy.to_dict())), proposal

    def _knobs_of(self, origin: FrozenTrial) -> dict[str, int]:
        return completed(origin.params, [knob.name for knob in self._proposer.space.knobs])

    def _schedules(self, policy: Policy, draw: random.Random) -> Iterator[Policy]:
        if policy.cache and self._measure is not None:
            yield rescheduled(policy, self._changes(tuple(rule.units for rule in policy.cache)))
        listed = self._proposer.space.explicit_noise_levels(policy)
        neighbour: Policy | None = listed
        for _ in range(draw.randint(1, _MOST_MOVES)):
            neighbour = neighbour and moved(neighbour, draw)
        # Two moves may lead back.
        if neighbour is not None and neighbour.key != listed.key:
            own = {name: getattr(policy, name) for name in _NOISE_LEVELS}
            unmoved = all(getattr(neighbour, name) == getattr(listed, name) for name in _NOISE_LEVELS)
            # A list that no move has changed says what the solver does, and would look like a policy of its own.
            yield Policy(**{**dict(neighbour), **own}) if unmoved else neighbour

    def _changes(self, units: Units) -> Sensitivity:
        assert self._measure is not None
        if units not in self._measured:
            self._measured[units] = self._measure(units)
        return self._measured[units]


def rescheduled(policy: Policy, sensitivity: Sensitivity) -> Policy:
    """The policy whose rules compute as often as before, but where what they reuse errs least in between.

    A rule that computes the last steps still does. One that computes only in steps of another still does, too: where
    the other reuses, it may have no reader.

    Args:
        policy: Has a row of the sensitivity for each of its rules.
        sensitivity: Of the full run.
    """
    listed = policy.sigmas or (policy.timesteps if isinstance(policy.timesteps, tuple) else None)
    sampled = sensitivity.at(progress_of(listed) if listed else even_progress(policy.steps))
    changes, strides = sampled.changes, sampled.strides
    required = {0, *(stage.until_step for stage in policy.resolution)}
    if policy.guidance is not None:
        required.add(policy.guidance.start_step)
    computing = [set(rule.compute_steps) for rule in policy.cache]

    @cache
    def better(row: int) -> tuple[int, ...]:
        fixed = required | cool_down_of(computing[row], policy.steps)
        outer = next((other for other, steps in enumerate(computing) if computing[row] < steps), None)
        count = max(len(computing[row]), len(fixed))
        if outer is None:
            return best_compute_steps(changes[row], count, fixed, strides)
        among = better(outer)
        # From one step in which it may compute to the next.
        between = np.diff(np.cumsum(changes[row])[list(among)], prepend=0.0)
        until_next = np.add.reduceat(strides, list(among))
        places = best_compute_steps(between, count, [among.index(step) for step in fixed], until_next)
        return tuple(among[place] for place in places)

    rules = [CacheRule(**{**dict(rule), "compute_steps": better(row)}) for row, rule in enumerate(policy.cache)]
    return Policy(**{**dict(policy), "cache": tuple(rules)})
