"""Pruning: a candidate is stopped before all of its pictures are made.

Most candidates are not worth all pictures, and the best ones are worth more than would be affordable for all. Each
is judged on its first eight pictures, then on twice as many and so on, and goes on where it is among the better half
of those judged so far: asynchronous successive halving (Li et al. 2020, MLSys), by Optuna's pruner. From 32 pictures on
the best four go on in any case: few come as far, and half of them may be one, whichever was lucky. All candidates make
the same pictures in the same order, so they are compared on equal terms. One that is behind the best candidate beyond
doubt, which a paired comparison tells, is pruned whatever its rank. What goes on at 64 makes all.

Fewer steps are what the winner must beat in the end, so the strongest of them has to be known, however far behind it
is: they compete with one another, and the best two of them go on.
"""

from __future__ import annotations

from collections.abc import Iterable

import optuna
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial

from autotune.evaluation.exact_runs import LOOKS
from autotune.policy.words import computes_everything
from autotune.quality import Evaluation, Objective
from autotune.quality.objective import LEAST_OF_DISTANCE
from autotune.quality.panel import Panel
from autotune.study.trials import POLICY, attributes, policy_of

LEAST = LOOKS[0]
"""Pictures before which nothing is pruned. The error to the exact run, and little else, is known of so few."""

LEAST_UNPAIRED = LOOKS[-1]
"""The same where nobody compares pictures with the exact run's; of searches with fewer nothing is pruned at all."""

COMPARED = LEAST_OF_DISTANCE
"""Pictures from which on candidates are compared with the best one; of fewer, intervals are too narrow."""

MOST = 64
"""Pictures after which rank alone prunes nothing any more."""

KEPT = 4
"""The best of those with :data:`LEAST_UNPAIRED` pictures or more, which rank does not prune."""

KEPT_FEWER_STEPS = 2
"""The best policies of fewer steps alone, which the rank among all candidates does not prune."""

LEVEL = 0.98
"""Of the interval that must lie above zero. Every batch is another chance to be wrong, so above the usual 0.95."""

_HALVES = 2
# More than half at every look, as later candidates are better than earlier ones: six searches of emoji-unet made 39 to
# 57 % of all pictures.
_GO_ON = 0.8
_RESAMPLES = 400


def first_look(panel: Panel) -> int:
    """Pictures before which no candidate is pruned."""
    return LEAST if panel.compares else LEAST_UNPAIRED


def usual_share(pictures: int, least: int = LEAST) -> float:
    """Share of its pictures that a candidate makes on average, by what goes on at a look in searches that get better.

    Example:
        >>> round(usual_share(128), 2)
        0.53
    """
    made, left, spent = least, 1.0, 0.0
    while made < pictures and made <= MOST and pictures >= LEAST_UNPAIRED:
        spent, left, made = spent + made * left * (1 - _GO_ON), left * _GO_ON, made * _HALVES
    return (spent + pictures * left) / pictures


class PairedPruner(BasePruner):
    """Optuna's successive halving, and a paired comparison with the best candidate; a study's pruner.

    Each look of the comparison is wrong about a candidate as good as the best one in 1 % of cases, and there is a look
    after every batch. Any look of a candidate's 256 pictures is wrong about 1.3 % of candidates that are as good as the
    best one (0.4 to 2.9 %; ``python -m studies.search.false_pruning emoji-unet``, judged by distance and alignment).

    Args:
        objective: Of all pictures.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self._least = first_look(objective.panel)
        self._halving = SuccessiveHalvingPruner(min_resource=self._least, reduction_factor=_HALVES)
        self._compared: tuple[Evaluation, Evaluation] | None = None

    def should_prune(self, trial: optuna.Trial, partial: Evaluation, best: Evaluation | None) -> bool:
        """Whether to prune a candidate that has made some of its pictures.

        Args:
            trial: Of a study whose pruner this is; gets the loss of these pictures, of few without distances.
            partial: Their evaluation.
            best: All pictures of the best candidate that it competes with, if there is one.
        """
        made = len(partial)
        if made < self._least or self._objective.count < LEAST_UNPAIRED:
            return False
        trial.report(self._objective.early(made).score(partial).loss, step=made)
        self._compared = None if best is None or made < COMPARED else (partial, best)
        return trial.should_prune()

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether the trial that :meth:`should_prune` speaks of is in the worse half, or behind the best one."""
        step = trial.last_step
        if step is not None and step <= MOST and self._halving.prune(study, trial) and not _is_spared(study, trial):
            return True
        return self._compared is not None and is_behind(self._objective, *self._compared)


def spends_less_by_steps_alone(trial: FrozenTrial) -> bool:
    """Whether a trial is of fewer steps, with whatever solver and noise levels."""
    return POLICY in attributes(trial) and computes_everything(policy_of(trial))


def _is_spared(study: optuna.Study, trial: FrozenTrial) -> bool:
    """Whether a trial is among those that rank does not prune."""
    others = [each for each in study.get_trials(deepcopy=False) if each.number != trial.number]
    step = trial.last_step
    if step is not None and step >= LEAST_UNPAIRED and _better(trial, others) < KEPT:
        return True
    rivals = filter(spends_less_by_steps_alone, others)
    return spends_less_by_steps_alone(trial) and _better(trial, rivals) < KEPT_FEWER_STEPS


def _better(trial: FrozenTrial, others: Iterable[FrozenTrial]) -> int:
    """How many of ``others`` had a lower loss with as many pictures."""
    step = trial.last_step
    assert step is not None, "it was reported before"
    losses = (each.intermediate_values.get(step) for each in others)
    return sum(loss is not None and loss < trial.intermediate_values[step] for loss in losses)


def is_behind(objective: Objective, partial: Evaluation, best: Evaluation) -> bool:
    """Whether the first pictures of a candidate are worse than those of the best one beyond doubt.

    Args:
        objective: Of all pictures.
        partial: Of the candidate's first n pictures.
        best: Of all pictures of the best one.
    """
    made = len(partial)
    found = objective.head(made).compare(partial, best.head(made), resamples=_RESAMPLES, level=LEVEL)
    return found.low > 0
