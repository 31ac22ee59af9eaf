"""Whether certified policies hold their floor on captions never seen, and what finding them costs.

``python -m studies.floors MODEL`` searches the cheapest policy for a loss of at most 0, 0.05 and 0.2, each floor in a
run of its own, as ``postdiff-tune --max-loss`` does, and one at 40 % of the full run's FLOPs to compare the costs with.
Each certified policy is then judged by the search's own objective on 1,024 captions that neither search nor last round
has seen. Everything is kept in ``runs/floors``: the same command goes on where it stopped. Results go to
``studies/results/floors-MODEL.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autotune.core.records import write_atomically
from autotune.cost import parse_budget
from autotune.evaluation.evaluator import Evaluator
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.progress import Progress
from autotune.workflows.session import prepared
from autotune.workflows.tune import TuneResult, tune
from studies.shipped import BATCH, unseen

FOLDER = Path("runs") / "floors"
RESULTS = Path(__file__).with_name("results")
FLOORS = (0.0, 0.05, 0.2)
BUDGET = "40%"
_SEED = 3 * 10**6


@dataclass(frozen=True)
class Held:
    """A floor and what was certified to hold it.

    Attributes:
        floor: The most that the loss may be.
        met: Whether anything cheaper than the full run was certified.
        policy: Its id.
        relative: FLOPs as a share of the full run's.
        certified: Upper end of its interval in the last round.
        unseen: Loss on captions never seen, and the ends of its 95 % interval.
        spent: FLOPs of the search's pictures, exact runs among them, as a share of the search's at one budget.
        all: The same of all pictures of all candidates, as if none had been stopped early.
    """

    floor: float
    met: bool
    policy: str
    relative: float
    certified: float
    unseen: tuple[float, float, float]
    spent: float
    all: float


def held(floor: float, result: TuneResult, one_budget: TuneResult, evaluator: Evaluator) -> Held:
    """What became of a floor."""
    found, cost = result.finalists.floor, result.policy.cost
    assert found is not None and found.certificate.loss is not None and cost is not None
    evaluation = evaluator.outcome(result.finalists.winner.policy).evaluation
    loss = evaluator.objective.interval(evaluation).loss
    return Held(
        floor=floor,
        met=found.met,
        policy=result.policy.id,
        relative=cost.relative,
        certified=found.certificate.loss.high,
        unseen=(loss.value, loss.low, loss.high),
        spent=_made(result) / _made(one_budget),
        all=result.spending.all / one_budget.spending.all,
    )


def _made(result: TuneResult) -> int:
    """FLOPs of all pictures that its search made."""
    return result.spending.spent + result.spending.exact


def table(model: str, found: Sequence[Held]) -> Table:
    shown = Table(title=f"{model}: certified policies on captions never seen")
    for column in ("floor", "policy", "FLOPs", "certified below", "unseen loss", "search against one of 40%"):
        shown.add_column(column)
    for each in found:
        estimate, low, high = each.unseen
        shown.add_row(
            f"{each.floor:g}",
            each.policy if each.met else f"none: {each.policy}",
            f"{each.relative:.1%}",
            f"{each.certified:.3f}",
            f"{estimate:.3f} ({low:.3f}..{high:.3f})",
            f"{each.spent:.2f} ({each.all:.2f} of all pictures)",
        )
    return shown


def verdict(found: Sequence[Held]) -> str:
    """How many hold, whether costs fall as floors rise, and whether searches kept within twice one."""
    kept = sum(each.unseen[0] <= each.floor for each in found)
    falling = all(a.relative >= b.relative for a, b in zip(found, found[1:], strict=False))
    within = max(each.spent for each in found) <= 2
    fall = "fall" if falling else "do not fall"
    return (
        f"{kept} of {len(found)} hold their floor on captions never seen; costs {fall} as floors rise; searches took"
        f" {'at most' if within else 'more than'} twice one at {BUDGET}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--floors", type=float, nargs="+", default=list(FLOORS))
    parser.add_argument("--trials", type=int, default=48, help="candidates of a search at one budget")
    parser.add_argument("--images", type=int, default=128, help="most tuning pictures a candidate")
    parser.add_argument("--held-out-images", type=int, default=480, help="pictures of the last round")
    parser.add_argument("--unseen", type=int, default=1024, help="captions never seen")
    args = parser.parse_args()
    model: str = args.model
    asked = f"{args.trials}-{args.images}-{args.held_out_images}"
    console, folder = Console(highlight=False, width=150), FOLDER / model / asked
    pipe = demo_pipeline(model)
    shared: dict[str, Any] = {
        "batch_size": BATCH,
        "images": args.images,
        "held_out_images": args.held_out_images,
        "trials": args.trials,
        "timeout": float("inf"),
        "study_name": model,
    }
    with without_bars(pipe):
        (setup,) = prepared(pipe, [parse_budget(BUDGET)], TuneOptions(**shared))
        one_budget = tune(pipe, BUDGET, **shared, run_dir=folder / "40")
        results = {most: tune(pipe, max_loss=most, **shared, run_dir=folder / f"loss-{most:g}") for most in args.floors}
        with Progress() as progress:
            examples = unseen(model, setup, args.unseen, _SEED)
            evaluator = evaluator_for(setup, examples, f"unseen-{args.unseen}", folder, progress)
            found = [held(most, result, one_budget, evaluator) for most, result in results.items()]
    console.print(table(model, found))
    console.print(verdict(found))
    if (args.trials, args.images, args.held_out_images, args.unseen) == (48, 128, 480, 1024):
        # A smaller run is a trial of this script.
        write_atomically(
            RESULTS / f"floors-{model}.json", json.dumps([asdict(each) for each in found], indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
