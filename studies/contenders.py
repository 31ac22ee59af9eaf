"""Is the tuned policy better than those that a first look cannot tell from it?

``python -m studies.fixed_recipes MODEL --pictures 256`` judges the tuned policy of each budget beside a dozen others.
``python -m studies.contenders MODEL`` takes from its results those that are not behind the tuned policy beyond doubt,
and has the same judges (:mod:`studies.judging`) look at 1,024 pictures of each (``--pictures``), of captions that
neither the search nor its last round has seen. Seeds are others, so that no picture that made a policy a contender
judges it again.

The loss is 0 for the full run. Features are kept in ``runs/contenders``: the same command goes on where it stopped.
Results go to ``studies/results/contenders-MODEL.json``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from autotune.cost import parse_budget
from autotune.models.shipped import DEMO_NAMES, demo_pipeline
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.policy import Policy, policy_from_dict
from autotune.workflows.setup import prepare
from studies.cells import keep
from studies.fixed_recipes import RESULTS, TUNED, standings, table, verdict
from studies.judging import PARTS, Judges
from studies.shipped import BATCH, unseen

FOLDER = Path("runs") / "contenders"
PICTURES = 1024
_SEED = 4 * 10**6


def contenders(cell: Mapping[str, Any]) -> dict[str, Policy]:
    """The tuned policy and those not behind it beyond doubt, by method, of a budget's results."""
    return {
        each["method"]: policy_from_dict(each["document"], each["method"])
        for each in cell["standings"]
        if each["method"] == TUNED or each["behind"][1] <= 0
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--budgets", nargs="+", metavar="BUDGET", help="of those in the results; default: all")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="captions that nobody saw")
    args = parser.parse_args(arguments)
    model, pictures = str(args.model), int(args.pictures)
    results = RESULTS / f"fixed_recipes-{model}.json"
    if not results.is_file():
        parser.error(f"there are no results in {results}; run python -m studies.fixed_recipes {model} first")
    known = json.loads(results.read_text())
    cells = {cell["budget"]: cell for cell in known["cells"]}
    asked = args.budgets or list(cells)
    if unknown := set(asked) - cells.keys():
        parser.error(f"fixed_recipes has no results for {', '.join(sorted(unknown))}; it has {', '.join(cells)}")
    console, pipe = Console(highlight=False, width=150), demo_pipeline(model)
    options = TuneOptions(
        batch_size=BATCH, images=known["images"], held_out_images=known["held_out_images"], trials=known["trials"]
    )
    setup = prepare(pipe, [parse_budget(budget) for budget in asked], options)[0]
    captions = unseen(model, setup, pictures, _SEED)
    folder = FOLDER / f"{model}-{known['images']}-{known['held_out_images']}-{pictures}"
    settings = {"model": model, "pictures": pictures, "judges": ", ".join(PARTS)}
    with without_bars(pipe):
        judges = Judges(setup, captions, model, folder)
        for budget in asked:
            rivals = contenders(cells[budget])
            tuned = rivals.pop(TUNED)
            found = standings(judges, setup, tuned, rivals)
            console.print(table(model, budget, found, cells[budget]["exported"]))
            console.print(f"{budget}: {verdict(found)}")
            cell = {"budget": budget, "verdict": verdict(found), "standings": [asdict(each) for each in found]}
            keep([cell], RESULTS / f"contenders-{model}.json", settings)


if __name__ == "__main__":
    main()
