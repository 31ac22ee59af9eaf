"""The search for the cheapest policy above a floor: at up to three budgets, which bracket where the floor is crossed.

A ladder of budgets is halved: where by the tuning pictures a policy surely holds the floor, the next search is at a
smaller budget, else at a larger one. Each search begins with what the others found, and all candidates of all of them
may win. The first search is at the middle of the ladder. All together take at most the FLOPs of two searches with
all trials there: each has two thirds of the trials, and fewer where its candidates cost more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from autotune.core.errors import InputError
from autotune.core.interval import Interval
from autotune.core.naming import default_study_name
from autotune.cost import Budget, Cost, Limits, parse_budget
from autotune.evaluation.evaluator import Evaluator
from autotune.options import TuneOptions
from autotune.policy import Policy
from autotune.quality.floor import SURE, Bounded, Floor, expected, sequence
from autotune.quality.panel import FIDELITY
from autotune.quality.sequential import looks
from autotune.results.finalists import EvaluatedPolicy
from autotune.search.recipes import recipes_at_budget
from autotune.study.trials import attributes, policy_of, ranked
from autotune.workflows.explore import search_at
from autotune.workflows.forecast import pictures_after
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup

WHOLE = "100%"
"""The budget of a floor where none is given."""

_SHARES = (15, 25, 32, 40, 50, 60, 80)
# Of all trials, what each of at most three searches gets, so that they are worth two.
_TRIALS = 2 / 3
# A budget that is this near the largest is no other one.
_APART = 0.95
# Of changes, which nothing but the next search depends on.
_RESAMPLES = 200


def ceiling(budget: Budget | None, *, target: bool) -> Budget:
    """What a floor's search is prepared with: the budget that must hold besides, or all of the full run.

    Args:
        budget: As it was given.
        target: Whether there is a profile of the hardware that policies will run on; times are then to be low.
    """
    return budget or parse_budget(f"{WHOLE}ms" if target else WHOLE)


@dataclass(frozen=True, eq=False)
class Rung:
    """One budget of the ladder.

    Attributes:
        setup: The search at it.
        name: Of its study.
        trials: Candidates that it gets.
        timeout: Seconds likewise.
    """

    setup: Setup
    name: str
    trials: int
    timeout: float


Helping = Callable[[Rung, optuna.Study], AbstractContextManager[None]]
"""Others at work on the study of a budget, as long as the block lasts."""


@dataclass(eq=False)
class Ladder:
    """All budgets that a search may try, and the studies of those it has tried.

    Attributes:
        top: What must hold besides the floor, and all else that the searches share.
        rungs: Growing.
        given: The budget that must hold besides, as the user wrote it.
        studies: Of the searches, by the place of their rungs.
    """

    top: Setup
    rungs: Sequence[Rung]
    given: str | None
    studies: dict[int, optuna.Study] = field(default_factory=dict)

    @staticmethod
    def of(top: Setup, name: str, options: TuneOptions, given: Budget | None) -> Ladder:
        """The ladder below a budget.

        Args:
            top: At what :func:`ceiling` says.
            name: Of the run.
            options: Trials and timeout are those of one search.
            given: The budget, where there is one.

        Raises:
            InputError: No budget of it pays for a step.
        """
        unit = "%ms" if top.budget.needs_latency else "%"
        suffix = "" if given is None else f",{given}"
        setups = [_within(top, parse_budget(f"{share}{unit}{suffix}")) for share in _SHARES]
        most = _bound(top.proposer.limits)
        found = [each for each in setups if each is not None and _bound(each.proposer.limits) < _APART * most]
        if given is not None or not found:
            found.append(top)
        middle = _bound(found[(len(found) - 1) // 2].proposer.limits)
        rungs = []
        for setup in found:
            share = _TRIALS * min(1.0, middle / _bound(setup.proposer.limits))
            label = str(setup.budget).removesuffix(suffix) or str(setup.budget)
            rungs.append(
                Rung(
                    setup,
                    default_study_name(name, label),
                    max(1, int(share * options.trials)),
                    share * options.timeout,
                )
            )
        return Ladder(top, tuple(rungs), None if given is None else str(given))

    @property
    def first(self) -> int:
        """The place of the budget that is searched first."""
        return (len(self.rungs) - 1) // 2

    @property
    def dearest(self) -> tuple[Rung, ...]:
        """The searches of a floor that only the largest budgets hold: none takes longer."""
        asked: list[int] = []

        def fails(place: int) -> bool:
            asked.append(place)
            return False

        bracket(len(self.rungs), fails)
        return tuple(self.rungs[place] for place in asked)

    @property
    def timed(self) -> bool:
        """Whether time is to be low; else FLOPs are."""
        return self.top.budget.needs_latency

    @cached_property
    def full_cost(self) -> float:
        """What the full run takes of it."""
        return self.cost(self.top.full)

    def cost(self, policy: Policy) -> float:
        """What a policy takes of what is to be low: milliseconds of a call, or FLOPs of a picture."""
        return self._of(self.top.proposer.price(policy))

    def _of(self, cost: Cost) -> float:
        if not self.timed:
            return cost.flops
        assert cost.latency_ms is not None, "there is a target"
        return cost.latency_ms

    def holder(self, policy: Policy) -> int:
        """The place of the smallest searched rung that pays for a policy; of the largest where none does."""
        paying = [place for place in sorted(self.studies) if self.rungs[place].setup.proposer.allows(policy)]
        return paying[0] if paying else max(self.studies)

    def candidates(self) -> list[tuple[EvaluatedPolicy, FrozenTrial]]:
        """All that were evaluated on all pictures, are cheaper than the full run and within the budget, none twice."""
        found: dict[str, tuple[EvaluatedPolicy, FrozenTrial]] = {}
        for place in sorted(self.studies):
            for trial in ranked(self.studies[place]):
                policy = policy_of(trial)
                if self.top.proposer.allows(policy) and self.cost(policy) < self.full_cost:
                    each = EvaluatedPolicy(self.studies[place].study_name, trial.number, policy)
                    found.setdefault(policy.key, (each, trial))
        return list(found.values())


@dataclass(eq=False)
class Prospects:
    """How likely candidates are to be certified, by what the tuning pictures say of them.

    Attributes:
        floor: What they should hold.
        evaluator: Of the tuning inputs.
        ladder: The searches.
    """

    floor: Floor
    evaluator: Evaluator
    ladder: Ladder

    def __post_init__(self) -> None:
        self._last = looks([row.key for row in self.ladder.top.held_out.rows])[-1]
        self._change = self.evaluator.objective.by(FIDELITY) if self.floor.change is not None else None
        self._known: dict[str, float] = {}

    def of(self, policy: Policy, trial: FrozenTrial) -> float:
        """The probability for a candidate of a trial."""
        if policy.key not in self._known:
            self._known[policy.key] = self._expected(policy, trial)
        return self._known[policy.key]

    def reaches(self, place: int) -> bool:
        """Whether a policy within a budget of the ladder surely holds the floor.

        The best of many candidates owes a part of what tuning pictures promise to luck, and where the first test fails
        there is no other. So nothing less than a sure candidate sends the search to smaller budgets; candidates that
        are merely likely to hold the floor are tested after it.
        """
        allows = self.ladder.rungs[place].setup.proposer.allows
        found = [self.of(each.policy, trial) for each, trial in self.ladder.candidates() if allows(each.policy)]
        return max(found, default=0.0) >= SURE

    def sequence(self) -> list[EvaluatedPolicy]:
        """What the held-out pictures are to test, the dearest first."""
        found = self.ladder.candidates()
        costs = [self.ladder.cost(each.policy) for each, _ in found]
        return [found[number][0] for number in sequence(costs, [self.of(each.policy, trial) for each, trial in found])]

    def _expected(self, policy: Policy, trial: FrozenTrial) -> float:
        given, bounds, pictures = attributes(trial), [], len(self.evaluator.rows)
        if self.floor.loss is not None:
            assert trial.values, "it was evaluated"
            loss = Interval(value=trial.values[0], low=given["loss_low"], high=given["loss_high"])
            bounds.append(Bounded("loss", loss, self.floor.loss))
            chance = expected(bounds, pictures, self._last)
            if chance == 0 or self._change is None:
                return chance
        if self._change is not None and self.floor.change is not None:
            # Another worker may have made its pictures.
            evaluation = self.evaluator.outcome(policy).evaluation
            change = self._change.interval(evaluation, resamples=_RESAMPLES).loss
            bounds.append(Bounded("change", change, self.floor.change))
        return expected(bounds, pictures, self._last)


def search_floors(
    ladder: Ladder,
    floors: Sequence[Floor],
    evaluator: Evaluator,
    folder: Path,
    options: TuneOptions,
    progress: Progress,
    opened: Callable[[Rung], optuna.Study],
    helping: Helping,
) -> list[Prospects]:
    """Search until it is known between which budgets each floor is crossed.

    Args:
        ladder: Gets the studies.
        floors: All are served by the same searches.
        evaluator: Of the tuning inputs.
        folder: The run's.
        options: Of the run.
        progress: Is told of what is done.
        opened: Opens the study of a budget.
        helping: Others who work on it.

    Returns:
        What is to be expected of all candidates, for each floor.
    """
    found = []
    for floor in floors:
        prospects = Prospects(floor, evaluator, ladder)

        def holds(place: int, prospects: Prospects = prospects) -> bool:
            if place not in ladder.studies:
                _search(ladder, place, evaluator, folder, options, progress, opened, helping)
            return prospects.reaches(place)

        bracket(len(ladder.rungs), holds)
        found.append(prospects)
    return found


def bracket(count: int, holds: Callable[[int], bool]) -> int:
    """The first of growing numbers below ``count`` that holds; ``count`` where none does.

    Example:
        >>> asked = []
        >>> bracket(7, lambda number: asked.append(number) or number >= 2), asked
        (2, [3, 1, 2])
    """
    low, high = -1, count
    while high - low > 1:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle
    return high


def _search(
    ladder: Ladder,
    place: int,
    evaluator: Evaluator,
    folder: Path,
    options: TuneOptions,
    progress: Progress,
    opened: Callable[[Rung], optuna.Study],
    helping: Helping,
) -> None:
    rung = ladder.rungs[place]
    progress.stage(f"budget {rung.setup.budget}")
    study = opened(rung)
    others = [(ladder.rungs[other].setup, ladder.studies[other]) for other in sorted(ladder.studies)]
    ladder.studies[place] = study
    progress.then("perhaps other budgets and the last round", pictures_after([rung.setup], rung.setup))
    with helping(rung, study):
        search_at(
            rung.setup, study, others, evaluator, folder, replace(options, trials=rung.trials), rung.timeout, progress
        )


def _within(top: Setup, budget: Budget) -> Setup | None:
    """The same search at another budget; None where that pays for no step."""
    proposer = top.proposer
    limits = budget.limits(proposer.price(top.full), proposer.limits.memory_bytes)
    restricted = proposer.restricted(limits)
    try:
        recipes = recipes_at_budget(restricted)
    except InputError:
        return None
    return replace(
        top,
        budget=budget,
        proposer=restricted,
        recipes=recipes,
        configuration=replace(top.configuration, budget=str(budget)),
    )


def _bound(limits: Limits) -> float:
    bound = limits.flops if limits.latency_ms is None else limits.latency_ms
    assert bound is not None, "every budget bounds one of them"
    return bound
