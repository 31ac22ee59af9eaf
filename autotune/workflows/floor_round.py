"""The last round of a search for the cheapest policy above a floor: which candidate the held-out pictures certify."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from autotune.core.interrupts import checkpoint
from autotune.core.interval import NOTHING, Interval
from autotune.evaluation.evaluator import Evaluator
from autotune.policy import Certificate, Policy
from autotune.policy.words import computes_everything
from autotune.quality.floor import Bounded, Certified, Floor, certify
from autotune.quality.panel import FIDELITY
from autotune.quality.sequential import Look, looks
from autotune.quality.verdict import LEAST_PROMPTS
from autotune.results.candidates import best_fewer_steps
from autotune.results.finalists import EvaluatedPolicy, Finalists, judge
from autotune.results.floor import FloorFound, Nearest
from autotune.results.ruling import NO_WORSE, Opinion, Ruling, is_feasible, rule
from autotune.search.diagnosis import CandidateError, Diagnosis
from autotune.workflows.floor_search import Ladder
from autotune.workflows.last_round import Judging, evaluate_finalist, measured_times
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup

LOSS, CHANGE, SECOND, ERROR = "loss", "change", "second opinion", "error"


@dataclass(frozen=True, eq=False)
class FloorRound:
    """What was found.

    Attributes:
        finalists: With what was found of the floor.
        evaluator: Of the held-out inputs.
        place: Of the searched budget that pays for what was certified, else for what came nearest.
    """

    finalists: Finalists
    evaluator: Evaluator
    place: int


def floor_round(
    ladder: Ladder,
    floor: Floor,
    candidates: Sequence[EvaluatedPolicy],
    judging: Judging,
    progress: Progress,
) -> FloorRound:
    """Certify the cheapest policy that holds the floor; the full run where none does.

    The full run differs in nothing from itself: it holds every floor, and no picture need say so.

    Args:
        ladder: The searches.
        floor: What policies are to hold.
        candidates: To test, the dearest first.
        judging: Of held-out inputs.
        progress: Is told of what is done.
    """
    top = ladder.top
    planned = looks([row.key for row in top.held_out.rows])
    found, tested = _tested(top, floor, candidates, planned, judging, progress)
    evaluator, second = judging(found.look.pictures)
    checkpoint()
    certified = None if found.place is None else tested[found.place]
    refused = None if found.refused is None else tested[found.refused]
    subject = certified or refused
    place = ladder.holder(top.full if subject is None else subject.policy)
    holder = ladder.rungs[place].setup
    fewer_steps = _fewer_steps(ladder, holder, subject)
    others = [each for each in (certified, refused) if each is not None and each != fewer_steps]
    winner = certified or EvaluatedPolicy(None, None, top.full)
    finalists = judge(
        evaluator,
        top.full,
        fewer_steps,
        others,
        top.pricer.price,
        second=second,
        ruling=_against(evaluator, winner, fewer_steps, second, found.look.level),
        planned=planned[-1].pictures,
        floor=FloorFound(
            certificate=_certificate(evaluator, floor, certified, found.look.level),
            met=certified is not None,
            budget=ladder.given,
            sought="time" if ladder.timed else "FLOPs",
            tested=len(tested),
            nearest=None if refused is None else _nearest(evaluator, floor, second, refused, found.look.level),
        ),
        winner=winner.policy,
    )
    return FloorRound(finalists.with_times(measured_times(top, finalists, progress)), evaluator, place)


def _tested(
    top: Setup,
    floor: Floor,
    candidates: Sequence[EvaluatedPolicy],
    planned: Sequence[Look],
    judging: Judging,
    progress: Progress,
) -> tuple[Certified, list[EvaluatedPolicy]]:
    """The tests, and what took part: all but candidates that held-out inputs break."""
    tested, broken = list(candidates), set[str]()

    def seen(number: int, look: Look) -> list[Bounded]:
        evaluator, second = judging(look.pictures)
        each = tested[number]
        progress.stage(f"whether trial {each.trial} holds the floor on held-out {top.noun}", look.pictures)
        try:
            evaluate_finalist(evaluator, Diagnosis(evaluator, top.maker.prefixes), each.policy)
        except CandidateError as error:
            progress.stage(f"trial {each.trial} is left out, for held-out {top.noun} break it: {error}")
            broken.add(each.policy.key)
            return []
        checkpoint()
        enough = len(set(evaluator.keys)) >= LEAST_PROMPTS
        allowed = enough and is_feasible(evaluator, each.policy)
        return bounds(evaluator, floor, second, each.policy, look.level) if allowed else []

    while True:
        before = len(broken)
        found = certify(len(tested), planned, functools.cache(seen))
        if len(broken) == before:
            return found, tested
        # Nobody chose whom to leave out by how well it does.
        tested[:] = [each for each in tested if each.policy.key not in broken]


def bounds(evaluator: Evaluator, floor: Floor, second: Opinion | None, policy: Policy, level: float) -> list[Bounded]:
    """What an evaluator's pictures say of a policy and a floor.

    Args:
        evaluator: Of held-out inputs.
        floor: What is to hold.
        second: May find no more loss than the floor allows by :data:`autotune.results.ruling.NO_WORSE`: judges that are
            fooled see none where others do.
        policy: The policy.
        level: Of the intervals.
    """
    evaluation, full = evaluator.outcome(policy).evaluation, evaluator.full.evaluation
    found = []
    if floor.loss is not None:
        loss = evaluator.objective.verdict([evaluation], full, level=level).difference
        found.append(Bounded(LOSS, loss, floor.loss))
        if second is not None:
            lost = second.objective.verdict([evaluation], full, level=level).difference
            found.append(Bounded(SECOND, lost, floor.loss + NO_WORSE))
    if floor.change is not None:
        change = evaluator.objective.by(FIDELITY).verdict([evaluation], full, level=level).difference
        found.append(Bounded(CHANGE, change, floor.change))
    return found


def _certificate(evaluator: Evaluator, floor: Floor, certified: EvaluatedPolicy | None, level: float) -> Certificate:
    seen: dict[str, Interval] = dict.fromkeys(floor.bounds, NOTHING)
    if certified is not None:
        seen = {each.name: each.interval for each in bounds(evaluator, floor, None, certified.policy, level)}
    return Certificate(
        max_loss=floor.loss,
        max_change=floor.change,
        loss=_rounded(seen.get(LOSS)),
        change=_rounded(seen.get(CHANGE)),
        level=level,
    )


def _nearest(
    evaluator: Evaluator, floor: Floor, second: Opinion | None, refused: EvaluatedPolicy, level: float
) -> Nearest:
    seen = {each.name: each for each in bounds(evaluator, floor, second, refused.policy, level)}
    over = [name for name, each in seen.items() if not each.holds]
    if not is_feasible(evaluator, refused.policy):
        over.append(ERROR)
    found = {name: _rounded(each.interval) for name, each in seen.items()}
    return Nearest(
        id=refused.policy.id,
        loss=found.get(LOSS),
        change=found.get(CHANGE),
        second=found.get(SECOND),
        over=tuple(over),
    )


def _rounded(interval: Interval | None) -> Interval | None:
    return None if interval is None else interval.rounded()


def _fewer_steps(ladder: Ladder, holder: Setup, subject: EvaluatedPolicy | None) -> EvaluatedPolicy:
    """The strongest fewer steps that cost no more than what was certified.

    What was certified, or came nearest, may itself be fewer steps.
    """
    recipe = holder.recipes[0].proposal
    if subject is None:
        return EvaluatedPolicy(None, None, recipe.policy)
    if computes_everything(subject.policy):
        return subject
    most = ladder.cost(subject.policy)
    limits = holder.proposer.limits
    within = {"latency_ms": most} if ladder.timed else {"flops": int(most)}
    at_cost = holder.proposer.restricted(type(limits)(memory_bytes=limits.memory_bytes, **within))
    plain = at_cost.propose(recipe.values)
    if plain is None:
        # Cheaper than a plain step.
        return EvaluatedPolicy(None, None, recipe.policy)
    own = EvaluatedPolicy(None, None, plain.policy)
    return best_fewer_steps(list(ladder.studies.values()), own, within=at_cost.allows)


def _against(
    evaluator: Evaluator, winner: EvaluatedPolicy, fewer_steps: EvaluatedPolicy, second: Opinion | None, level: float
) -> Ruling:
    """The winner against fewer steps at its cost."""
    if winner.policy.key == fewer_steps.policy.key:
        return Ruling(NOTHING, None, False)
    return rule(evaluator, [winner.policy], fewer_steps.policy, second, level)
