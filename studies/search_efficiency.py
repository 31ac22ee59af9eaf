"""How many evaluations a search takes: ours and others, replayed on a table of evaluated policies.

``python -m studies.search_efficiency MODEL`` reads the table (:mod:`studies.search.table`), learns what lies between
its entries (:mod:`studies.search.surrogate`) and lets each search run from 20 seeds. All of them propose values of the
same knobs, have the number of steps solved from the budget, and repeat nothing. What differs:

- **ours**: solvers and guidance first, then other recipes, the most promising two or three together, multivariate TPE,
  at last neighbours of the best policies;
- **ours of 48**: the same with as many candidates as ``postdiff-tune`` evaluates unless told otherwise;
- **TPE**, **GP**, **CMA-ES**, **random**: Optuna's samplers as they come;
- **NSGA-II**: with ECAD's settings (crossover 0.9, mutation 0.05; arXiv 2506.15682), but a population of 16, not 72.

Printed: the best loss after 25, 50 and 100 evaluations (median over seeds), and the median number of evaluations to
reach what random search and NSGA-II reach after 100, and the best of what a person writes in one line
(:mod:`studies.search.grid`). Results go to ``studies/results/search_efficiency-MODEL.json`` whenever a search has run
from all seeds: the same command goes on there.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState
from rich.console import Console
from rich.progress import track
from rich.table import Table

from autotune.core.fingerprint import digest
from autotune.core.records import write_atomically
from autotune.models.shipped import DEMO_NAMES
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.policy import policy_from_dict
from autotune.search.local_search import Refiner, Units
from autotune.search.loop import search
from autotune.search.proposer import Proposal
from autotune.search.repetitions import PLAN
from autotune.search.sensitivity import Sensitivity
from autotune.search.trial_runner import RELATIVE_COST, Report
from autotune.study.candidate import Candidate
from autotune.study.notes import OVER_BUDGET
from autotune.study.trials import (
    DESCRIPTION,
    DUPLICATE_OF,
    FAILURE,
    POLICY,
    POLICY_ID,
    POLICY_KEY,
    REFINES,
    begin,
    enqueue_recipes,
)
from autotune.study.trials import RESULTS as TRIAL_RESULTS
from autotune.workflows.progress import Progress
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.setup import Setup
from studies.search.surrogate import Surrogate, agreement, features
from studies.search.table import RESULTS, Entry, read, setup_of

SEEDS = 20
EVALUATIONS = 100
TRIALS = TuneOptions().trials
"""Candidates of a search unless more are asked for: when it begins to refine depends on how many are to come."""
SHOWN = (25, 50, 100)
RANDOM, GENETIC, OURS, GRID = "random", "NSGA-II", "ours", "the grid"
# Samplers that keep proposing what they know end here.
_MOST_TRIALS = 4 * EVALUATIONS

Losses = list[float]
"""Of the policies a search evaluated, in their order."""


@dataclass(frozen=True)
class World:
    """What searches run in: the model's space and prices, what policies score, and how outputs change along a run."""

    setup: Setup
    surrogate: Surrogate
    measure: Callable[[Units], Sensitivity]


class Replay:
    """Evaluates trials by the table, and notes what came of each. Takes the place of a ``TrialRunner``."""

    def __init__(self, world: World, study: optuna.Study) -> None:
        self._world, self._study = world, study
        self.proposer = world.setup.proposer
        self.pruner = NopPruner()
        self.losses: Losses = []
        self._seen: dict[str, int] = {}

    def draw(self, trial: optuna.Trial) -> Mapping[str, int]:
        """What the study's own sampler proposes."""
        conditional = isinstance(self._study.sampler, TPESampler | RandomSampler)
        return self.proposer.space.drawn(trial.suggest_int, conditional=conditional)

    def begin(self, candidate: Candidate) -> tuple[optuna.Trial, None]:
        return begin(self._study, candidate), None

    def settle(self) -> None:
        """Everything is written at once."""

    def run(self, trial: optuna.Trial, values: Mapping[str, int] | None, *_: object) -> Report:
        proposer, study = self.proposer, self._study
        if values is None:
            values = self.draw(trial)
        else:
            # The parameters of a candidate are what it was made with.
            values = proposer.space.values_of(trial)
        proposal: Proposal | None
        if REFINES in trial.user_attrs:
            proposal = proposer.explicit(policy_from_dict(trial.user_attrs[DESCRIPTION][POLICY]), values)
        else:
            proposal = proposer.propose(values)
        if proposal is None:
            trial.set_user_attr(FAILURE, OVER_BUDGET)
            study.tell(trial, state=TrialState.FAIL)
            return Report(trial.number, None, None)
        plan = proposer.plan(proposal.policy)
        loss = self._world.surrogate.loss(proposal.policy, plan)
        policy = proposal.policy
        known = {POLICY: policy.to_dict(), POLICY_ID: policy.id, POLICY_KEY: policy.key, PLAN: plan}
        trial.set_user_attr(DESCRIPTION, known | {RELATIVE_COST: proposal.cost.relative})
        if plan in self._seen:
            trial.set_user_attr(TRIAL_RESULTS, {DUPLICATE_OF: self._seen[plan]})
        else:
            self._seen[plan] = trial.number
            self.losses.append(loss)
        study.tell(trial, loss)
        return Report(trial.number, proposal, loss)


def ours(world: World, seed: int, *, trials: int | None = None, recipes: bool = True, refined: bool = True) -> Losses:
    """The search as ``postdiff-tune`` runs it, but for its pictures, of as many ``trials`` as others have or fewer."""
    study = optuna.create_study(direction="minimize")
    replay = Replay(world, study)
    if recipes:
        enqueue_recipes(study, [(recipe.name, recipe.proposal.values) for recipe in world.setup.recipes])
    with Progress(quiet=True) as quiet:
        search(
            study,
            replay,
            Refiner(world.setup.proposer, seed, world.measure) if refined else None,
            sampler="tpe",
            trials=EVALUATIONS if trials is None else trials,
            timeout=1e9,
            seed=seed,
            progress=quiet,
        )
    return replay.losses


def plain(world: World, sampler: BaseSampler) -> Losses:
    """A sampler on the same knobs, from nothing."""
    study = optuna.create_study(direction="minimize", sampler=sampler)
    replay = Replay(world, study)
    for _ in range(_MOST_TRIALS):
        if len(replay.losses) >= EVALUATIONS:
            break
        replay.run(study.ask(), None)
    return replay.losses


# Those that others are measured by come first, those that take long last.
SEARCHES: Mapping[str, Callable[[World, int], Losses]] = {
    OURS: ours,
    RANDOM: lambda world, seed: plain(world, RandomSampler(seed=seed)),
    GENETIC: lambda world, seed: plain(
        world, NSGAIISampler(population_size=16, crossover_prob=0.9, mutation_prob=0.05, seed=seed)
    ),
    f"ours of {TRIALS}": lambda *given: ours(*given, trials=TRIALS),
    "TPE": lambda world, seed: plain(world, TPESampler(seed=seed)),
    "CMA-ES": lambda world, seed: plain(world, CmaEsSampler(seed=seed, warn_independent_sampling=False)),
    "ours without recipes": lambda *given: ours(*given, recipes=False),
    "ours without refinement": lambda *given: ours(*given, refined=False),
    "GP": lambda world, seed: plain(world, GPSampler(seed=seed)),
}


def best_after(losses: Losses, evaluations: int) -> float:
    """The lowest loss among the first so many."""
    return min(losses[:evaluations])


def needed(losses: Losses, level: float) -> float:
    """Evaluations until the loss is no higher than ``level``; infinite where it never is."""
    return next((number for number, loss in enumerate(losses, 1) if loss <= level), float("inf"))


def table(model: str, runs: Mapping[str, list[Losses]], levels: Mapping[str, float]) -> Table:
    shown = Table(title=f"{model}: medians over {SEEDS} seeds")
    shown.add_column("search")
    for count in SHOWN:
        shown.add_column(f"best of {count}", justify="right")
    for name in levels:
        reached = f"{name}'s best" if name == GRID else f"{name}'s best of {EVALUATIONS}"
        shown.add_column(f"evaluations to {reached}", justify="right")
    for name, found in runs.items():
        bests = [f"{statistics.median(best_after(each, count) for each in found):.4f}" for count in SHOWN]
        counts = [f"{statistics.median(needed(each, level) for each in found):g}" for level in levels.values()]
        shown.add_row(name, *bests, *counts)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    args = parser.parse_args()
    console = Console(highlight=False, width=150)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    setup, entries = setup_of(args.model), read(args.model)
    rows = np.stack([features(entry.policy, setup.proposer.space, setup.pricer) for entry in entries])
    models = agreement(entries, rows)
    for each in models:
        console.print(
            f"{each.model}: Spearman {each.spearman:.3f}, among the best quarter {each.spearman_of_best:.3f},"
            f" variance explained {each.explained:.0%} (entries left out, {len(entries)} in all)"
        )
    surrogate = Surrogate(entries, rows, models[0].model, setup.proposer.space, setup.pricer)
    world = World(setup, surrogate, functools.cache(setup.sensitivity))
    of_table = digest([(entry.plan, entry.loss) for entry in entries])
    known = {"model": args.model, "entries": len(entries), "seeds": args.seeds, "table": of_table}
    path = RESULTS / f"search_efficiency-{args.model}.json"
    runs = begun(path, known)
    with quiet_optuna(), without_bars(setup.pipe):
        for name, run in SEARCHES.items():
            if name in runs:
                continue
            losses = [run(world, seed) for seed in track(range(args.seeds), name, transient=True)]
            runs[name] = [[round(loss, 5) for loss in each] for each in losses]
            levels = levels_of(entries, runs)
            document = {
                **known,
                "surrogate": [asdict(each) for each in models],
                "levels": levels,
                "needed": {
                    name: {to: [needed(each, level) for each in found] for to, level in levels.items()}
                    for name, found in runs.items()
                },
                "losses": runs,
            }
            write_atomically(path, json.dumps(document) + "\n")
    console.print(table(args.model, runs, levels_of(entries, runs)))


def levels_of(entries: Sequence[Entry], runs: Mapping[str, list[Losses]]) -> dict[str, float]:
    """What searches are to reach: the best line, and what others have reached by now."""
    best = {name: [best_after(each, EVALUATIONS) for each in runs[name]] for name in (RANDOM, GENETIC) if name in runs}
    grid = min(entry.loss for entry in entries if entry.source == "grid")
    return {GRID: grid, **{name: statistics.median(found) for name, found in best.items()}}


def begun(path: Path, known: Mapping[str, Any]) -> dict[str, list[Losses]]:
    """The losses of searches that have run on the same table."""
    former = json.loads(path.read_text()) if path.is_file() else {}
    return dict(former["losses"]) if known.items() <= former.items() else {}


if __name__ == "__main__":
    main()
