"""Many evaluated policies of a shipped model at one budget: the table that searches are replayed on.

``python -m studies.search.table MODEL`` evaluates the recipes and what a person would write in one line
(:mod:`studies.search.grid`), then policies drawn at random from the search space, then what the default sampler
proposes from all of these, then neighbours of the best ones, each on the same pictures.
A table of random policies alone would say nothing of where searches end. Results are appended to
``studies/results/policies-MODEL.jsonl`` as they come; the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.trial import create_trial
from rich.progress import Progress, SpinnerColumn, TimeRemainingColumn

from autotune.cost import parse_budget
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.options import SetupOptions
from autotune.pipelines.bars import without_bars
from autotune.policy import Policy, policy_from_dict
from autotune.quality import Evaluation, Objective
from autotune.search.proposer import Proposal, Proposer
from autotune.search.samplers import sampler_for
from autotune.study.candidate import draw
from autotune.workflows import progress as search_progress
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.setup import Setup, prepare
from search_spaces import moved
from search_spaces.earlier import completed
from search_spaces.levers import Ask
from studies.search.grid import settings, within
from studies.shipped import BATCH, search_prompts

RESULTS = Path(__file__).parents[1] / "results"
BUDGET = "25%"
"""Where policies differ: at larger budgets most of them are as good as the full run."""

PICTURES = 64
"""Of fewer, distances are mostly bias, which is not the same for all policies."""

POLICIES = 192
RANDOM, SAMPLED = 0.5, 0.75
"""Shares of the table after which the sampler, and then local search, takes over."""

BEST = 10
"""Whose neighbours are tried."""

_SAMPLED_TRIES = 40
"""Known policies that the sampler may propose before a neighbour takes the place: it returns to what is good."""

FIRST = (8, 16, 32)
"""Pictures whose losses are noted besides."""

_FOLDER = Path("runs") / "table"


@dataclass(frozen=True)
class Entry:
    """A policy and what its pictures scored.

    Attributes:
        source: ``recipe``, ``grid``, ``random``, ``sampler`` or ``neighbour``.
        values: Knobs that it stands for, or those of the policy that it is a neighbour of.
        plan: Digest of what it computes.
        relative: Share of the full run's FLOPs.
        loss: Of the objective, 0 for the full run.
        first: Loss and terms of the first 8, 16 and 32 pictures alone, and of all.
    """

    source: str
    policy: Policy
    values: Mapping[str, int]
    plan: str
    relative: float
    loss: float
    first: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def to_json(self) -> str:
        document = {**vars(self), "policy": self.policy.to_dict(), "loss": round(self.loss, 6)}
        return json.dumps(document, separators=(",", ":"))


def path_of(model: str) -> Path:
    return RESULTS / f"policies-{model}.jsonl"


def read(model: str) -> list[Entry]:
    """The table as far as it was made."""
    path = path_of(model)
    lines = path.read_text().splitlines() if path.is_file() else []
    documents = [json.loads(line) for line in lines]
    return [Entry(**{**document, "policy": policy_from_dict(document["policy"])}) for document in documents]


def setup_of(model: str, pictures: int = PICTURES, budget: str = BUDGET) -> Setup:
    """A search of a shipped model as the command line makes it, with few pictures."""
    options = SetupOptions(
        prompts=demo_assets(model).tuning_prompts,
        held_out=search_prompts(model)[1],
        batch_size=BATCH,
        images=pictures,
        held_out_images=8,
    )
    (setup,) = prepare(demo_pipeline(model), [parse_budget(budget)], options)
    return setup


def candidates(setup: Setup, entries: list[Entry], wanted: int) -> Iterator[tuple[str, Proposal]]:
    """What to evaluate next. The caller appends to ``entries`` what came of the last one before it asks for more."""
    known = {entry.plan for entry in entries}
    recipes = {setup.proposer.plan(recipe.proposal.policy): recipe.proposal for recipe in setup.recipes}
    for plan, recipe in recipes.items():
        if plan not in known:
            yield "recipe", recipe
    for proposal in of_grid(setup):
        if setup.proposer.plan(proposal.policy) not in {entry.plan for entry in entries}:
            yield "grid", proposal
    tries = 0
    found: Proposal | None
    while len(entries) < wanted:
        tries += 1
        share = len(entries) / wanted
        sampled = share < SAMPLED and tries <= _SAMPLED_TRIES
        source = "random" if share < RANDOM else "sampler" if sampled else "neighbour"
        chance = random.Random(f"{len(entries)} {tries}")
        if source == "random":
            values = setup.proposer.space.drawn(chance_of(chance))
            found = setup.proposer.propose(values)
        elif source == "sampler":
            found = setup.proposer.propose(asked(setup.proposer, entries, len(entries) * 1000 + tries))
        else:
            found = neighbour(setup.proposer, entries, chance)
        if found is None or setup.proposer.plan(found.policy) in {entry.plan for entry in entries}:
            continue
        tries = 0
        yield source, found


def of_grid(setup: Setup) -> Iterator[Proposal]:
    """What a person would write, at the budget."""
    proposer, share = setup.proposer, float(BUDGET.rstrip("%")) / 100
    for values in settings(proposer.space):
        policy = within(proposer.space, setup.pricer, values, share, proposer.max_steps)
        if policy is not None:
            yield Proposal(values, policy, proposer.price(policy))


def asked(proposer: Proposer, entries: Sequence[Entry], seed: int) -> Mapping[str, int]:
    """Knob values that the default sampler proposes after the entries."""
    trials = [trial_of(proposer, entry.values, entry.loss) for entry in entries]
    return draw(sampler_for("tpe", seed, 0), proposer.space, trials, conditional=True).values


def chance_of(numbers: random.Random) -> Ask:
    """Answers at random."""
    return lambda _, low, high: numbers.randint(low, high)


def trial_of(proposer: Proposer, values: Mapping[str, int], loss: float) -> optuna.trial.FrozenTrial:
    bounds: dict[str, BaseDistribution] = {k.name: IntDistribution(k.low, k.high) for k in proposer.space.knobs}
    return create_trial(params=completed(values, bounds), distributions=bounds, value=loss)


def neighbour(proposer: Proposer, entries: Sequence[Entry], draw: random.Random) -> Proposal | None:
    """One of the best policies after one or two moves of its explicit schedule."""
    best = draw.choice(sorted(entries, key=lambda entry: entry.loss)[:BEST])
    policy = moved(proposer.space.explicit_noise_levels(best.policy), draw)
    if policy is not None and draw.random() < 0.5:
        policy = moved(policy, draw) or policy
    return None if policy is None else proposer.explicit(policy, best.values)


def first_scores(objective: Objective, evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Loss and terms by how many of the first pictures they are of."""
    found = {}
    for count in (*FIRST, len(evaluation)):
        score = objective.early(count).score(evaluation.head(count))
        found[str(count)] = {"loss": round(score.loss, 6)} | {n: round(v, 6) for n, v in score.terms.items()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--policies", type=int, default=POLICIES)
    args = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    RESULTS.mkdir(exist_ok=True)
    setup, entries = setup_of(args.model), read(args.model)
    with search_progress.Progress(quiet=True) as quiet, without_bars(setup.pipe):
        evaluator = evaluator_for(setup, setup.tuning, "tuning", _FOLDER / args.model, quiet)
    with Progress(SpinnerColumn(), *Progress.get_default_columns()[:-1], TimeRemainingColumn()) as bar:
        task = bar.add_task(args.model, total=args.policies, completed=len(entries))
        with without_bars(setup.pipe), path_of(args.model).open("a") as file:
            for source, proposal in islice(candidates(setup, entries, args.policies), args.policies):
                evaluation = evaluator.outcome(proposal.policy).evaluation
                score = evaluator.objective.score(evaluation)
                first = first_scores(evaluator.objective, evaluation)
                policy, cost = proposal.policy.model_copy(update={"model": None}), proposal.cost.relative
                plan = setup.proposer.plan(proposal.policy)
                entry = Entry(source, policy, dict(proposal.values), plan, cost, float(score.loss), first)
                entries.append(entry)
                print(entry.to_json(), file=file, flush=True)
                bar.update(task, completed=len(entries), description=f"{args.model} {source} {score.loss:.3f}")


if __name__ == "__main__":
    main()
