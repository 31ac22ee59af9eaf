"""The shipped models as studies search them; prompts and judges are those that their cards name."""

from __future__ import annotations

import random
from argparse import ArgumentTypeError

from autotune.evaluation.examples import Examples
from autotune.evaluation.inputs import rows_of_prompts
from autotune.evaluation.own_assets import prompts_to_tune
from autotune.models.shipped import DEMO_NAMES, demo_assets
from autotune.pipelines.card import read_card
from autotune.workflows.setup import Setup

BATCH = 32
"""Pictures per pipeline call."""


def shipped(name: str) -> str:
    """A type of command-line arguments, for argparse checks the default of ``nargs="*"`` as if it were one choice."""
    if name not in DEMO_NAMES:
        raise ArgumentTypeError(f"{name!r} is no shipped model; choose from {', '.join(DEMO_NAMES)}")
    return name


def search_prompts(model: str) -> tuple[list[str], list[str]]:
    """What a search of a shipped model tunes on, and what judges what it found."""
    found = prompts_to_tune(read_card(demo_assets(model).folder))
    assert found is not None and found[1] is not None, "its card names both"
    return found[0], found[1]


def unseen(model: str, setup: Setup, count: int, first_seed: int) -> Examples:
    """Captions that neither the search nor its last round has seen, from seeds of their own."""
    assets = demo_assets(model)
    seen = {*setup.tuning.prompts, *setup.held_out.prompts}
    captions = [caption for caption in (*assets.tuning_prompts, *assets.held_out_prompts) if caption not in seen]
    chosen = rows_of_prompts(random.Random(0).sample(captions, count))
    return Examples(chosen, tuple(range(first_seed, first_seed + count)))
