"""The last round: the best candidates, fewer steps and the full run on held-out inputs, and how long each takes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Sequence
from dataclasses import replace

import optuna

from autotune.core.faults import during
from autotune.core.interrupts import checkpoint
from autotune.cost.profile.environment import describe_device
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.timing import time_policies
from autotune.policy import MeasuredTime, Policy
from autotune.policy.words import computes_everything
from autotune.quality import Evaluation
from autotune.quality.sequential import looks
from autotune.results.candidates import best_fewer_steps, best_trials
from autotune.results.finalists import EvaluatedPolicy, Finalists, judge
from autotune.results.ruling import Opinion, out_of_the_running, rule
from autotune.search.diagnosis import CandidateError, Diagnosis
from autotune.study.trials import POLICY_KEY, attributes, evaluated
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup

_LOG = logging.getLogger(__name__)

FINALISTS = 3
"""Candidates of every last round."""

TIMED_IMAGES = 8
"""Pictures in a call whose time the last round measures, where the budget says nothing of time."""


Judging = Callable[[int], tuple[Evaluator, Opinion | None]]
"""Judges of so many of the first held-out inputs, and a judge that the search did not ask, of those they measure."""


def last_round(
    setup: Setup,
    study: optuna.Study,
    studies: Sequence[optuna.Study],
    judging: Judging,
    progress: Progress,
) -> tuple[Finalists, Evaluator]:
    """The best candidates that the budget allows against the strongest fewer steps, whichever search they come from.

    The round ends where the verdict is known, see :mod:`autotune.quality.sequential`. Until then it drops candidates
    that can hardly turn out to be the best.

    Args:
        setup: Of the budget.
        study: Of its search.
        studies: Of all budgets' searches.
        judging: Of held-out inputs.
        progress: Is told of what is done.

    Returns:
        What was found, and who evaluated it.
    """
    recipe = setup.recipes[0].proposal.policy
    trial = next((t.number for t in evaluated(study) if attributes(t).get(POLICY_KEY) == recipe.key), None)
    plain = EvaluatedPolicy(None, trial, recipe)
    fewer_steps = best_fewer_steps(studies, plain, within=setup.proposer.allows)
    planned = looks([row.key for row in setup.held_out.rows])
    dropped: dict[str, Evaluation] = {}
    for look in planned:
        evaluator, second = judging(look.pictures)
        progress.stage(f"the best candidates and fewer steps on held-out {setup.noun}", look.pictures)
        candidates = _finalists(setup, studies, evaluator, progress, dropped)
        policies = [each.policy for each in candidates]
        ruling = rule(evaluator, policies, fewer_steps.policy, second, look.level, [*dropped.values()])
        checkpoint()
        if ruling.better or ruling.hopeless(look, planned[-1]):
            break
        for each in out_of_the_running(evaluator, policies, look, planned[-1]):
            dropped[each.key] = evaluator.outcome(each).evaluation
            _LOG.info("%s is dropped after %d pictures: it can hardly turn out to be the best", each.id, look.pictures)
    finalists = judge(
        evaluator,
        setup.full,
        fewer_steps,
        candidates,
        setup.pricer.price,
        second=second,
        ruling=ruling,
        planned=planned[-1].pictures,
    )
    return finalists.with_times(measured_times(setup, finalists, progress)), evaluator


def measured_times(setup: Setup, finalists: Finalists, progress: Progress) -> list[MeasuredTime]:
    """How long each of the headline runs takes, measured in turn."""
    # Times under a bound on time are comparable with it.
    wanted = TIMED_IMAGES if setup.proposer.limits.latency_ms is None else setup.call_batch
    timed = min(wanted, setup.configuration.batch_size, len(setup.held_out.rows))
    checkpoint()
    progress.stage("measuring time", timed)

    # What is timed must be made from its start.
    whole_calls = replace(setup, maker=replace(setup.maker, prefixes=None))

    def run(policy: Policy) -> None:
        for _ in whole_calls.pictures(policy, setup.held_out.rows[:timed], setup.held_out.seeds[:timed]):
            pass

    full, *others = (run.policy for run in finalists.headline_runs)
    device = describe_device(setup.pipe.device).title[:200]
    batch_size = min(timed, setup.configuration.batch_size)
    with during("while measuring time"):
        timings = time_policies(run, full, others)
    return [
        MeasuredTime(
            device=device,
            batch_size=batch_size,
            ms_per_image=round(timing.seconds * 1000 / timed, 3),
            relative=round(timing.relative, 4),
        )
        for timing in timings
    ]


def _finalists(
    setup: Setup, studies: Sequence[optuna.Study], evaluator: Evaluator, progress: Progress, dropped: Container[str]
) -> list[EvaluatedPolicy]:
    """The best candidates but those dropped, by their keys.

    One that cannot be evaluated here, and it alone, gives its place to the next best.
    """
    diagnosis, broken = Diagnosis(evaluator, setup.maker.prefixes), set[str]()

    def excluded(policy: Policy) -> bool:
        return computes_everything(policy) or policy.key in broken

    while True:
        best = best_trials(studies, FINALISTS, exclude=excluded, within=setup.proposer.allows)
        found = [each for each in best if each.policy.key not in dropped]
        before = len(broken)
        for each in found:
            try:
                evaluate_finalist(evaluator, diagnosis, each.policy)
            except CandidateError as error:
                broken.add(each.policy.key)
                progress.stage(f"trial {each.trial} is left out, for held-out {setup.noun} break it: {error}")
        if len(broken) == before:
            return found


def evaluate_finalist(evaluator: Evaluator, diagnosis: Diagnosis, policy: Policy) -> None:
    """Have the pictures of a policy made and judged, which are kept.

    Raises:
        CandidateError: That fails, and with this policy alone.
    """
    try:
        evaluator.outcome(policy)
    except Exception as error:
        diagnosis.check(error, lambda: evaluator.outcome(policy))
        raise
