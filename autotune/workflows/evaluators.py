"""What evaluates the policies of a run, and where its scores are kept."""

from __future__ import annotations

import functools
from pathlib import Path

from autotune.core.faults import during
from autotune.evaluation.evaluator import Evaluator, Pictures
from autotune.evaluation.examples import Examples
from autotune.evaluation.references import own_reference
from autotune.policy import Policy
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup

OUTCOMES = "outcomes"
"""Folder of a run with what pictures scored."""


def outcomes_folder(setup: Setup, folder: Path) -> Path:
    """Where a run in ``folder`` keeps what pictures scored, for as long as nothing that bears on it changes."""
    return folder / OUTCOMES / setup.configuration.pictures_digest


def evaluator_for(setup: Setup, examples: Examples, name: str, folder: Path, progress: Progress) -> Evaluator:
    """What evaluates policies on ``examples``, called ``name``; the full run's pictures are made now.

    Raises:
        InputError: the reference does not fit.
    """
    cache = outcomes_folder(setup, folder)
    count = len(examples.rows)
    reference = setup.reference
    if reference is None and setup.judges.weights.fd:
        progress.stage("pictures of the full run as reference", len(setup.tuning.rows))
        make = functools.partial(setup.pictures, setup.full, on_batch=progress.pictures)
        with during("in the reference"):
            reference = own_reference(
                make,
                setup.judges.distance_network,
                setup.tuning.rows,
                setup.reference_seed,
                cache / "reference.safetensors",
            )
    progress.stage(f"full run on {count} {name} {setup.noun}", count)

    def pictures(policy: Policy) -> Pictures:
        return setup.pictures(policy, examples.rows, examples.seeds, progress.pictures)

    with during(f"in the full run on {name} {setup.noun}"):
        return setup.judges.evaluator(pictures, examples.rows, reference, setup.full, cache / name)
