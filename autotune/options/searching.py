"""What a search tries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autotune.options.declare import Topic, option

Ranges = Mapping[str, tuple[int, int]] | str | os.PathLike[str]
"""Other ranges for some knobs, both ends included, a TOML file of them, or an engine: what it can run."""

PREFIX_MEMORY = "1GB"
"""For what calls begin with; states of one call take megabytes."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """What a search tries; None leaves a value to the model or the sampler."""

    max_steps: int | None = option(
        None,
        "Most steps that a policy may have.",
        topic=Topic.SEARCH,
        shell=None,
        shown="half more than the full run",
    )
    space: Ranges | None = option(
        None,
        "TOML file with a table [knobs] of ranges, or cache-dit: what it can run.",
        topic=Topic.SEARCH,
        shell=Path | None,
        shown="the family's",
    )
    sampler: Literal["tpe", "gp", "cmaes", "nsga2", "random"] = option(
        "tpe", "Optuna's sampler that proposes candidates: tpe, gp, cmaes, nsga2 or random.", topic=Topic.SEARCH
    )
    early_stopping: bool | None = option(
        None,
        "Make no more pictures of candidates whose first ones are poor.",
        topic=Topic.SEARCH,
        shown="with tpe and random",
    )
    prefix_memory: str | int = option(
        PREFIX_MEMORY,
        "Most memory for what calls began with, so that others that begin alike go on from there; 0 keeps nothing."
        " Pictures are the same to the bit.",
        topic=Topic.SEARCH,
        shell=None,
    )
