"""Should guidance be stronger where it runs in fewer steps?

``python -m studies.guidance_strength MODEL`` takes a policy that a person would write for each of 25, 40 and 60 % of
the full run's FLOPs, guided in some of its steps, and multiplies what guidance adds there by 1, 1.25 and 1.5, which
costs nothing (``factor`` of :class:`autotune.policy.Guidance`). Three judges that no search asks
(:mod:`studies.judging`) see 256 pictures of each (``--pictures``), and of exact runs that are guided alike. Differences
to a factor of 1 are paired by caption; 95 % bootstrap intervals.

Features are kept in ``runs/guidance-strength``: the same command goes on where it stopped. Results go to
``studies/results/guidance_strength-MODEL.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autotune.cost import parse_budget
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.policy import Guidance, Policy, SchedulerChoice, lowest_version
from autotune.workflows.setup import Setup, prepare
from studies.cells import keep
from studies.judging import PARTS, Judges
from studies.shipped import BATCH, unseen

FOLDER = Path("runs") / "guidance-strength"
RESULTS = Path(__file__).with_name("results")
FACTORS = (1.0, 1.25, 1.5)
PICTURES = 256
_SEED = 6 * 10**6
_DPM = SchedulerChoice(name="DPMSolverMultistepScheduler")
LINES: Mapping[str, tuple[int, SchedulerChoice | None, int, int]] = {
    "25%": (7, _DPM, 3, 6),
    "40%": (10, _DPM, 3, 9),
    "60%": (16, None, 5, 13),
}
"""By budget the steps, the solver and the steps in which guidance begins and ends."""


@dataclass(frozen=True)
class Strength:
    """A line with one factor.

    Attributes:
        loss: By the three judges; 0 is the full run.
        parts: By each of them.
        difference: To the loss with a factor of 1, with its 95 % interval.
    """

    factor: float
    policy: str
    relative: float
    loss: float
    parts: tuple[float, float, float]
    difference: tuple[float, float, float]


def line(budget: str, factor: float) -> Policy:
    """A budget's policy with guidance so many times as strong."""
    steps, solver, start, stop = LINES[budget]
    guidance = Guidance(start_step=start, stop_step=stop, factor=factor)
    return Policy(version=lowest_version(None, (), guidance), steps=steps, scheduler=solver, guidance=guidance)


def strengths(judges: Judges, setup: Setup, budget: str) -> list[Strength]:
    """A budget's policy with every factor, the first of which is 1."""
    plain = judges.judged(line(budget, 1))
    found = []
    for factor in FACTORS:
        policy = line(budget, factor)
        judged = judges.judged(policy)
        difference = judges.compare(judged, plain)
        found.append(
            Strength(
                factor,
                policy.id,
                setup.pricer.price(policy).relative,
                judged.loss,
                judged.losses,
                (difference.value, difference.low, difference.high),
            )
        )
    return found


def table(model: str, cells: Mapping[str, list[Strength]]) -> Table:
    shown = Table(title=f"{model}: guidance in some of the steps, as strong as ever and stronger")
    for column in ("budget", "policy", "FLOPs", "loss", *PARTS, "against a factor of 1"):
        shown.add_column(column)
    for budget, found in cells.items():
        for each in found:
            value, low, high = each.difference
            against = "" if each.factor == 1 else f"{value:+.3f} ({low:+.3f}..{high:+.3f})"
            losses = (f"{loss:.3f}" for loss in (each.loss, *each.parts))
            shown.add_row(budget, each.policy, f"{each.relative:.1%}", *losses, against)
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="captions that nobody saw")
    args = parser.parse_args()
    model, pictures = str(args.model), int(args.pictures)
    pipe: Any = demo_pipeline(model)
    setup = prepare(pipe, [parse_budget("60%")], TuneOptions(batch_size=BATCH))[0]
    settings = {"model": model, "pictures": pictures, "judges": ", ".join(PARTS)}
    cells: dict[str, list[Strength]] = {}
    with without_bars(pipe):
        judges = Judges(setup, unseen(model, setup, pictures, _SEED), model, FOLDER / f"{model}-{pictures}")
        for budget in LINES:
            cells[budget] = strengths(judges, setup, budget)
            cell = {"budget": budget, "strengths": [asdict(each) for each in cells[budget]]}
            keep([cell], RESULTS / f"guidance_strength-{model}.json", settings)
    Console(highlight=False, width=150).print(table(model, cells))


if __name__ == "__main__":
    main()
