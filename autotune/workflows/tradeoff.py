"""Fewer steps or cheaper steps? The best of either and of both at several budgets, found and compared for one model.

What Du et al. 2025 (arXiv 2508.06160) ask, studied by searching all three arms alike: the same judges and pictures,
the same search, winners chosen on tuning prompts and compared on held-out ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna

from autotune.core.errors import InputError
from autotune.core.interval import NOTHING
from autotune.core.naming import default_study_name
from autotune.cost import Budget, Limits, parse_budget
from autotune.evaluation.evaluator import Evaluator
from autotune.results.candidates import best_trials
from autotune.results.finalists import EvaluatedPolicy, quality_record
from autotune.results.tradeoff import ARMS, BOTH, PAIRS, BudgetLevel, Difference, Tradeoff, Winner, verdict_of
from autotune.search.arms import known_recipes, proposer_for
from autotune.search.proposer import Proposer
from autotune.study.heartbeat import close
from autotune.study.trials import attributes, enqueue_recipes, evaluated, open_study, ranked
from autotune.workflows.explore import explore
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup

BUDGETS = ("15%", "25%", "40%", "60%", "80%", "100%")
TRIALS = 8
"""Candidates of every arm and budget, besides what is known."""


def run_tradeoff_study(
    setup: Setup,
    tuning: Evaluator,
    held_out: Evaluator,
    folder: Path,
    *,
    name: str,
    url: str,
    progress: Progress,
    budgets: Sequence[str] = BUDGETS,
    trials: int = TRIALS,
    tuned: Sequence[optuna.Study] = (),
) -> Tradeoff:
    """Search the best of each arm within each budget, then compare them on held-out prompts.

    Every search is a study of its own in the storage, called ``<name>-explain-<arm>-<budget>``, so that the same call
    resumes. An arm may take any candidate of its own that the budget pays for, whichever budget's search it comes
    from; ``both`` takes those of the other two arms as well.

    Args:
        setup: The model, its judges and its space.
        tuning: Evaluates candidates.
        held_out: Compares winners, on prompts and seeds that no candidate has seen.
        folder: Gets the candidates' pictures.
        name: What the studies' names begin with.
        url: SQLAlchemy URL of their storage.
        progress: Is told of everything.
        budgets: Shares of the full run's FLOPs.
        trials: Candidates of every arm and budget, besides known recipes and the best of what was searched before.
        tuned: Studies of the same model and pictures, whose candidates take part in ``both``.

    Raises:
        InputError: a budget is no share of the FLOPs or comes twice, or ``trials`` is below 1.
        KeyboardInterrupt: at a safe point; the same call goes on there.
    """
    if trials < 1:
        raise InputError(f"trials is {trials}; give at least 1")
    full = setup.pricer.price(setup.full)
    searches = _Searches(setup, tuning, folder, name, url, trials, progress)
    ladder: list[tuple[float, Budget, dict[str, Cell]]] = []
    for share, budget in _by_share(budgets).items():
        limits = budget.limits(full, setup.proposer.limits.memory_bytes)
        smaller = ladder[-1][2] if ladder else {}
        cells: dict[str, Cell] = {}
        for arm in ARMS:
            earlier = [*([smaller[arm]] if smaller else []), *(cells.values() if arm == BOTH else [])]
            cells[arm] = searches.run(arm, budget, limits, [cell.study for cell in earlier if cell.study is not None])
        ladder.append((share, budget, cells))
    pools = _pools([cells for _, _, cells in ladder], tuned)
    levels = tuple(_level(*each, pools, setup, held_out, progress) for each in ladder)
    return Tradeoff(
        model=setup.model_name,
        full_steps=setup.full.steps,
        full_flops=full.flops,
        trials=trials,
        images=len(tuning.rows),
        held_out_images=len(held_out.rows),
        held_out_prompts=len(set(held_out.keys)),
        seed=setup.configuration.seed,
        scorer=setup.judges.scorer_name,
        network=setup.judges.network_name,
        estimator=setup.judges.estimator,
        noun=setup.noun,
        levels=levels,
        verdict=verdict_of(levels, len(set(held_out.keys))),
    )


def _by_share(budgets: Sequence[str]) -> dict[float, Budget]:
    """Budgets by their share of the FLOPs, growing."""
    found: dict[float, Budget] = {}
    for text in budgets:
        budget = parse_budget(text)
        share = budget.bounds[0].flops_share
        if len(budget.bounds) > 1 or share is None:
            raise InputError(f"{text!r} is no share of the full run's FLOPs; give budgets such as 40%")
        if float(share) in found:
            raise InputError(f"the budget {text} is given twice; give each once")
        found[float(share)] = budget
    if not found:
        raise InputError("no budget is given; give at least one, such as 40%")
    return dict(sorted(found.items()))


@dataclass(frozen=True)
class Cell:
    """One arm within one budget, searched; ``study`` is None where it cannot keep to the budget, and why is told."""

    proposer: Proposer
    study: optuna.Study | None
    why: str = ""


@dataclass(frozen=True)
class _Searches:
    """What all searches share; see :func:`run_tradeoff_study`."""

    setup: Setup
    evaluator: Evaluator
    folder: Path
    name: str
    url: str
    trials: int
    progress: Progress

    def run(self, arm: str, budget: Budget, limits: Limits, before: Sequence[optuna.Study]) -> Cell:
        """The search of one arm within one budget, begun with recipes and with the best of searches ``before`` it."""
        proposer = proposer_for(arm, self.setup.proposer, limits, self.setup.full.steps)
        self.progress.stage(f"{arm} within {budget}")
        if proposer.propose(proposer.cheapest.values) is None:
            least = proposer.cheapest.cost.relative
            return Cell(proposer, None, f"the cheapest takes {100 * least:.3g} %")
        known = [(recipe.name, recipe.proposal.values) for recipe in known_recipes(arm, proposer)]
        for study in before:
            known += [(f"best of {study.study_name}", attributes(best)["values"]) for best in ranked(study)[:1]]
        setup = self._restricted(proposer, budget)
        name = default_study_name(f"{self.name}-explain-{arm}", str(budget))
        study = open_study(name, self.url, setup.configuration)
        enqueue_recipes(study, known)
        close(study, False)
        trials, seed = len(known) + self.trials, setup.configuration.seed
        explore(setup, study, self.evaluator, self.folder, trials, float("inf"), seed, self.progress)
        return Cell(proposer, study)

    def _restricted(self, proposer: Proposer, budget: Budget) -> Setup:
        """The setup of a search by another proposer, and what its study is bound to."""
        steps = f"steps {proposer.least_steps or 1}..{proposer.max_steps}"
        configuration = replace(
            self.setup.configuration,
            budget=str(budget),
            max_steps=proposer.max_steps,
            knobs=(*(f"{knob.name} {knob.low}..{knob.high}" for knob in proposer.space.knobs), steps),
        )
        return replace(self.setup, proposer=proposer, budget=budget, configuration=configuration)


def _pools(ladder: Sequence[Mapping[str, Cell]], tuned: Sequence[optuna.Study]) -> dict[str, list[optuna.Study]]:
    """Whose candidates each arm may take."""
    searched = [(arm, cell.study) for cells in ladder for arm, cell in cells.items() if cell.study is not None]
    pools = {arm: [study for of, study in searched if arm in (of, BOTH)] for arm in ARMS}
    return pools | {BOTH: [*pools[BOTH], *tuned]}


def _level(
    share: float,
    budget: Budget,
    cells: Mapping[str, Cell],
    pools: Mapping[str, Sequence[optuna.Study]],
    setup: Setup,
    evaluator: Evaluator,
    progress: Progress,
) -> BudgetLevel:
    """The winners within one budget, against each other on held-out prompts."""
    winners: dict[str, Winner] = {}
    missing: dict[str, str] = {}
    for arm, cell in cells.items():
        best = best_trials(pools[arm], 1, within=cell.proposer.allows)
        if not best:
            missing[arm] = cell.why or "no candidate could be evaluated"
            continue
        progress.stage(f"the best of {arm} within {budget} on held-out {setup.noun}", len(evaluator.rows))
        candidates = 0 if cell.study is None else len(evaluated(cell.study))
        winners[arm] = _winner(best[0], pools[arm], candidates, setup, evaluator)
    differences = [_difference(a, b, winners, setup, evaluator) for a, b in PAIRS if a in winners and b in winners]
    return BudgetLevel(
        budget=str(budget), share=share, winners=winners, missing=missing, differences=tuple(differences)
    )


def _winner(
    best: EvaluatedPolicy, studies: Sequence[optuna.Study], candidates: int, setup: Setup, evaluator: Evaluator
) -> Winner:
    assert best.study is not None and best.trial is not None, "a trial evaluated it"
    study = next(each for each in studies if each.study_name == best.study)
    return Winner(
        study=best.study,
        trial=best.trial,
        id=best.policy.id,
        policy=best.policy,
        relative=setup.pricer.price(best.policy).relative,
        tuning_loss=study.get_trials(deepcopy=False)[best.trial].values[0],
        quality=quality_record(evaluator.objective.interval(evaluator.outcome(best.policy).evaluation)),
        candidates=candidates,
    )


def _difference(a: str, b: str, winners: Mapping[str, Winner], setup: Setup, evaluator: Evaluator) -> Difference:
    policies = [winners[arm].policy for arm in (a, b)]
    if setup.proposer.plan(policies[0]) == setup.proposer.plan(policies[1]):
        return Difference(a=a, b=b, loss=NOTHING, same=True)
    one, other = (evaluator.outcome(policy).evaluation for policy in policies)
    return Difference(a=a, b=b, loss=evaluator.objective.verdict([one], other).difference.rounded(), same=False)
