"""Where should the exact run of a policy be guided, and what does it cost to share exact runs?

``python -m studies.proxy.intents MODEL`` judges what a person would write at 25 % of the FLOPs, six steps of DPM++ or
of the pipeline's own solver that are guided here or there. Exact runs are guided as searches have it (the middle
between two steps is at the same noise level), at the nearest steps of the full run, and at the nearest multiples of
two and of five of them, which more candidates would share. It prints the panel's error and drift of 32 pictures,
which are the same in all columns, and the loss that they make together with alignment. Outcomes are kept in
``runs/intents``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from autotune.cost import parse_budget
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.options import SetupOptions
from autotune.pipelines.bars import without_bars
from autotune.policy import Guidance, Policy
from autotune.workflows.evaluators import evaluator_for
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup, prepare
from search_spaces.solvers import OWN
from studies.proxy.exact import snapped_run
from studies.shipped import BATCH

FOLDER = Path("runs") / "intents"
PICTURES = 32
EVERY = (1, 2, 5)
_MIDWAY = 0
STEPS = 6
# Where guidance begins and ends, and the skew of the noise levels; of the pipeline's own solver last.
_LINES = ((2, 5, 0), (1, 4, 0), (1, 5, 2), (2, 5, 1), (2, 5, 2), (2, 5, 3))
_OWN_LINES = ((2, 5, 0), (1, 4, 0))


@dataclass(frozen=True)
class Snapped(Setup):
    """A search whose exact runs switch guidance at multiples of ``every`` steps, or as any search's do."""

    every: int = _MIDWAY

    def intent(self, policy: Policy) -> Policy:
        return super().intent(policy) if self.every == _MIDWAY else snapped_run(policy, self.full.steps, self.every)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    model = parser.parse_args().model
    pipe = demo_pipeline(model)
    options = SetupOptions(batch_size=BATCH, images=PICTURES, held_out_images=8, error_pictures=PICTURES)
    (setup,) = prepare(pipe, [parse_budget("25%")], options)
    space: Any = setup.proposer.space
    solver = next(each for each in space.solvers if each.name == "DPMSolver")
    columns = ("midway: error, drift, loss", *(f"at multiples of {every}: error, drift, loss" for every in EVERY))
    table = Table("policy", "skew", *columns)
    given = {field.name: getattr(setup, field.name) for field in fields(Setup)}
    with without_bars(pipe), Progress(quiet=True) as progress:
        evaluators = [
            evaluator_for(Snapped(**given, every=every), setup.tuning, f"every {every}", FOLDER / model, progress)
            for every in (_MIDWAY, *EVERY)
        ]
        lines = [*((each, solver) for each in _LINES), *((each, OWN) for each in _OWN_LINES)]
        for (start, stop, skew), of in lines:
            policy = Policy(
                steps=STEPS,
                guidance=Guidance(start_step=start, stop_step=stop),
                **of.fields(skew, STEPS),
            )
            cells = []
            for evaluator in evaluators:
                score = evaluator.objective.early(PICTURES).score(evaluator.outcome(policy).evaluation)
                cells.append(f"{score.terms['error']:.3f}, {score.terms['drift']:.3f}, {score.loss:.3f}")
            table.add_row(policy.id, str(skew), *cells)
    Console(highlight=False, width=160).print(table)


if __name__ == "__main__":
    main()
