"""What evaluates the policies of a run, and where its scores are kept."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from pathlib import Path

from autotune.core.faults import during
from autotune.evaluation.evaluator import Evaluator, Pictures
from autotune.evaluation.examples import Examples
from autotune.evaluation.judges import Judges
from autotune.evaluation.references import own_references
from autotune.models.shipped import FULL_RUNS
from autotune.policy import Policy
from autotune.quality.panel import DISTANCE
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup

OUTCOMES = "outcomes"
"""Folder of a run with what pictures scored."""


def outcomes_folder(setup: Setup, folder: Path) -> Path:
    """Where a run in ``folder`` keeps what pictures scored, for as long as nothing that bears on it changes."""
    return folder / OUTCOMES / setup.configuration.pictures_digest


def shipped_full_run(setup: Setup) -> Path | None:
    """Folder with what judges saw of the full run's pictures, where it is a shipped model's with default options."""
    folder = FULL_RUNS / setup.configuration.pictures_digest
    return folder if folder.is_dir() else None


def evaluator_for(
    setup: Setup, examples: Examples, name: str, folder: Path, progress: Progress, judges: Judges | None = None
) -> Evaluator:
    """What evaluates policies on ``examples``, called ``name``; the full run is made now, unless it is known.

    Args:
        setup: Of the search.
        examples: Inputs and seeds.
        name: What they are called.
        folder: The run's.
        progress: Is told of what is done.
        judges: None are those of the search.

    Raises:
        InputError: the reference does not fit.
    """
    judges = judges or setup.judges
    cache = outcomes_folder(setup, folder)
    count = len(examples.rows)
    references = dict(setup.references)
    own = {name: network for name, network in judges.referring.items() if name not in references}
    if own:
        progress.stage("pictures of the full run as reference", len(setup.tuning.rows))
        make = functools.partial(setup.pictures, setup.full, on_batch=progress.pictures)
        files = {name: f"reference{'' if name == DISTANCE else f'-{name}'}.safetensors" for name in own}
        with during("in the reference"):
            references |= own_references(
                make,
                own,
                setup.tuning.rows,
                setup.reference_seed,
                {name: cache / file for name, file in files.items()},
            )
    shipped = shipped_full_run(setup)
    if shipped is not None and (shipped / name).is_dir() and not (cache / name).exists():
        _copy(shipped / name, cache / name)
    progress.stage(f"full run on {count} {name} {setup.noun}", count)

    def pictures(policy: Policy, first: int, last: int) -> Pictures:
        def told(made: int) -> None:
            progress.pictures(first + made)

        return setup.pictures(policy, examples.rows[first:last], examples.seeds[first:last], told)

    def make_exact(policy: Policy, first: int, last: int) -> Pictures:
        # Untold: progress counts a candidate's pictures.
        return setup.pictures(policy, examples.rows[first:last], examples.seeds[first:last])

    with during(f"in the full run on {name} {setup.noun}"):
        return judges.evaluator(
            pictures,
            examples.rows,
            references,
            setup.full,
            cache / name,
            intent=setup.intent,
            make_exact=make_exact,
        )


def _copy(folder: Path, to: Path) -> None:
    """Whole or not at all, and nothing where another process was quicker."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as beside:
        copied = shutil.copytree(folder, Path(beside) / to.name)
        try:
            os.rename(copied, to)
        except OSError:
            if not to.is_dir():
                raise
