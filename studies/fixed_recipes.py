"""The tuned policy against what people do by hand, at equal FLOPs, before judges that the search never asks.

``python -m studies.fixed_recipes MODEL`` takes, for budgets of 25, 40 and 60 % of the full run's FLOPs (``--budgets``):

1. **tuned**: ``autotune.tune_budgets``, the best candidate of each last round;
2. **fixed recipes** within 2 % of the budget (:mod:`studies.search.recipes`): fewer steps with uniform and with tuned
   timesteps, DeepCache or FORA, PAB-like, T-GATE and PostDiff's mix, each in that of its settings which scores best on
   64 tuning prompts; the best that a person writes in one line, of a whole grid (:mod:`studies.search.grid`); and
   BudCache, L2P and fitted timesteps, which fit a policy to the model (:mod:`studies.search.fitted_recipes`);
3. **judges**: the mean of EfficientNet-Lite0's distance to real pictures, a second CLIP's alignment, and error to the
   exact run in EfficientNet's features (:mod:`studies.judging`), of 1,024 pictures of as many captions
   (``--pictures``) which neither the search nor its last round has seen. Differences are paired by caption; 95 %
   bootstrap intervals.

The loss is 0 for the full run. Pictures and features are kept in ``runs/fixed``: the same command goes on where it
stopped. Results go to ``studies/results/fixed_recipes-MODEL.json``.

``--quick`` asks in half of the time whether what is exported as better is better: the judges see only the tuned policy
and the fewer steps that it met in its last round, and nothing goes to the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from autotune.cost import parse_budget
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.examples import choose
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.policy import Policy
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup, prepare
from autotune.workflows.tune import TuneResult, tune_budgets
from studies.cells import keep
from studies.judging import PARTS, Judges
from studies.search.fitted_recipes import Fitter
from studies.search.grid import FOLDER as GRID_FOLDER
from studies.search.grid import grid
from studies.search.recipes import ONE_LINE, TUNED_STEPS, UNIFORM, methods, tuned_steps
from studies.shipped import BATCH, unseen

FOLDER = Path("runs") / "fixed"
RESULTS = Path(__file__).with_name("results")
BUDGETS = {"25%": 0.25, "40%": 0.4, "60%": 0.6}
PICTURES = 1024
TUNED = "tuned"
RIVAL = "fewer steps of the last round"
_TRIALS = 48
# Of the last round half of what ``postdiff-tune`` takes: enough captions must be left for the judges.
_SEARCH_PICTURES, _HELD_OUT_PICTURES = 128, 240
_RECIPE_PICTURES = 64
_SKEWS = (-4, -2, 0, 2, 4)
_MOST_STEPS = 40
_SEED = 2 * 10**6


@dataclass(frozen=True)
class Standing:
    """A method's policy in a cell.

    Attributes:
        policy: Its short id.
        document: The policy whole, as :func:`autotune.policy.policy_from_dict` takes it.
        parts: The loss by each of the three judges, whose mean it is.
        behind: Its loss minus the tuned policy's, with its 95 % interval.
    """

    method: str
    policy: str
    document: Mapping[str, Any]
    relative: float
    loss: float
    parts: tuple[float, float, float]
    behind: tuple[float, float, float]


def fixed_policies(setup: Setup, budget: float, evaluator: Evaluator, fitter: Fitter) -> dict[str, Policy]:
    """Every method's best setting on the tuning prompts."""
    space, steps = setup.proposer.space, setup.recipes[0].proposal.policy.steps
    tried = {
        TUNED_STEPS: tuned_steps(space, steps, _SKEWS),
        ONE_LINE: grid(space, setup.pricer, budget, _MOST_STEPS),
        **methods(space, setup.pricer, budget, _MOST_STEPS),
        **fitter.methods(space, steps, budget),
    }

    def loss(policy: Policy) -> float:
        return evaluator.objective.score(evaluator.outcome(policy).evaluation).loss

    chosen = {UNIFORM: Policy(steps=steps)}
    for name, policies in tried.items():
        if policies:
            chosen[name] = min(track(policies, name, transient=True), key=loss)
    return chosen


def standings(judges: Judges, setup: Setup, tuned: Policy, fixed: dict[str, Policy]) -> list[Standing]:
    """All methods before the judges, best first."""
    best = judges.judged(tuned)
    found = []
    for name, policy in {TUNED: tuned, **fixed}.items():
        judged = judges.judged(policy)
        behind = judges.compare(judged, best)
        found.append(
            Standing(
                name,
                policy.id,
                policy.to_dict(),
                setup.pricer.price(policy).relative,
                judged.loss,
                judged.losses,
                (behind.value, behind.low, behind.high),
            )
        )
    return sorted(found, key=lambda each: each.loss)


def table(model: str, budget: str, found: Sequence[Standing], exported: bool) -> Table:
    how = "beat fewer steps in its own last round" if exported else "did not beat fewer steps in its own last round"
    shown = Table(title=f"{model}, {budget}: the tuned policy {how}")
    for column in ("method", "policy", "FLOPs", "loss", *PARTS, "behind the tuned policy"):
        shown.add_column(column)
    for each in found:
        estimate, low, high = each.behind
        behind = "" if each.method == TUNED else f"{estimate:+.3f} ({low:+.3f}..{high:+.3f})"
        losses = (f"{loss:.3f}" for loss in (each.loss, *each.parts))
        shown.add_row(each.method, each.policy, f"{each.relative:.1%}", *losses, behind)
    return shown


def verdict(found: Sequence[Standing]) -> str:
    """Where the tuned policy stands: ``first beyond doubt``, ``first`` or its place."""
    place = [each.method for each in found].index(TUNED) + 1
    if place > 1:
        return f"place {place}"
    return "first beyond doubt" if all(each.behind[1] > 0 for each in found if each.method != TUNED) else "first"


def best_candidate(result: TuneResult) -> Policy:
    """The best of the last round, whether or not it beat fewer steps beyond doubt."""
    return result.finalists.candidates[0].policy


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--budgets", nargs="+", choices=BUDGETS, default=list(BUDGETS), metavar="BUDGET")
    parser.add_argument("--trials", type=int, default=_TRIALS, help="candidates for each budget")
    parser.add_argument("--images", type=int, default=_SEARCH_PICTURES, help="most tuning pictures a candidate")
    parser.add_argument("--held-out-images", type=int, default=_HELD_OUT_PICTURES, help="pictures of the last round")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="captions that nobody saw, for the judges")
    parser.add_argument("--quick", action="store_true", help="only the tuned policy and its rival of the last round")
    args = parser.parse_args()
    model: str = args.model
    console, folder = Console(highlight=False, width=150), FOLDER / model
    # Other settings leave other captions.
    asked = f"{args.images}-{args.held_out_images}"
    pipe = demo_pipeline(model)
    options = TuneOptions(
        batch_size=BATCH,
        images=args.images,
        held_out_images=args.held_out_images,
        trials=args.trials,
        timeout=7200,
        run_dir=folder / "-".join(["tuned", str(args.trials), asked, *(each.rstrip("%") for each in args.budgets)]),
        study_name=model,
    )
    shares = [BUDGETS[budget] for budget in args.budgets]
    budgets = [parse_budget(budget) for budget in args.budgets]
    setups = prepare(pipe, budgets, options)
    with without_bars(pipe):
        results = tune_budgets(pipe, budgets, options)
        fixed = [{RIVAL: result.finalists.fewer_steps.policy} for result in results]
        if not args.quick:
            few = choose(setups[0].tuning.rows, _RECIPE_PICTURES, 0)
            with Progress(quiet=True) as quiet:
                evaluator = evaluator_for(setups[0], few, "few", GRID_FOLDER / model, quiet)
            fitter = Fitter(model, pipe, setups[0].pricer, setups[0].tuning)
            for policies, setup, share in zip(fixed, setups, shares, strict=True):
                policies |= fixed_policies(setup, share, evaluator, fitter)
        captions = unseen(model, setups[0], args.pictures, _SEED)
        judges = Judges(setups[0], captions, model, folder / f"judged-{asked}-{args.pictures}")
        cells = []
        for budget, setup, result, policies in zip(args.budgets, setups, results, fixed, strict=True):
            found = standings(judges, setup, best_candidate(result), policies)
            console.print(table(model, budget, found, result.finalists.better))
            cells.append(
                {
                    "budget": budget,
                    "verdict": verdict(found),
                    "exported": result.finalists.better,
                    "standings": [asdict(each) for each in found],
                }
            )
        console.print(", ".join(f"{cell['budget']}: {cell['verdict']}" for cell in cells))
    if args.quick:
        return
    settings = {
        "model": model,
        "trials": args.trials,
        "images": args.images,
        "held_out_images": args.held_out_images,
        "pictures": args.pictures,
        "judges": ", ".join(PARTS),
    }
    keep(cells, RESULTS / f"fixed_recipes-{model}.json", settings)


if __name__ == "__main__":
    main()
