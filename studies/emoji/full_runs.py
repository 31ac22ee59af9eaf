"""What judges see of the shipped models' full runs, so that a first search need not make their pictures.

``python -m studies.emoji.full_runs`` makes the full run of each model on the tuning and held-out inputs of a run with
default options. It writes what such a run keeps of it into the package, by the digest of all that decides it; runs with
other options, such as another seed, make their own. Repeat it whenever a model, its captions, the seeds or what judges
measure changes: a test compares what is there with pictures made anew.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from autotune.cost import parse_budget
from autotune.models.shipped import DEMO_NAMES, FULL_RUNS, demo_pipeline
from autotune.options import TuneOptions
from autotune.pipelines.bars import without_bars
from autotune.workflows.evaluators import evaluator_for, outcomes_folder
from autotune.workflows.progress import Progress
from autotune.workflows.setup import prepare


def write(name: str, to: Path) -> Path:
    """Write what judges see of one model's full run into a folder in ``to``."""
    pipe = demo_pipeline(name)
    with without_bars(pipe), TemporaryDirectory() as work, Progress() as progress:
        (setup,) = prepare(pipe, [parse_budget("40%")], TuneOptions())
        folder = Path(work)
        for examples, kind, judges in (
            (setup.tuning, "tuning", setup.judges),
            (setup.held_out, "held-out", setup.last_judges),
        ):
            evaluator_for(setup, examples, kind, folder, progress, judges)
        made = outcomes_folder(setup, folder)
        return Path(shutil.copytree(made, to / made.name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    if FULL_RUNS.exists():
        shutil.rmtree(FULL_RUNS)
    for name in DEMO_NAMES:
        print(write(name, FULL_RUNS))


if __name__ == "__main__":
    main()
