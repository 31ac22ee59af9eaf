"""Where a policy will run, for budgets in time and memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.options.declare import Topic, option

if TYPE_CHECKING:
    from autotune.cost import Profile
else:  # The shell knows it by its file.
    Profile = object


@dataclass(frozen=True, kw_only=True)
class DeploymentOptions:
    """Where a policy will run, for budgets in time and memory."""

    target: Profile | str | Path | None = option(
        None,
        "Hardware profile for times.",
        topic=Topic.BUDGET,
        shell=Path | None,
        shown="this machine's",
    )
    call_batch: int | None = option(
        None,
        "Pictures per call in deployment.",
        topic=Topic.BUDGET,
        flag="--batch",
        shown="1",
        least=1,
    )
    max_cache_memory: str | int | None = option(
        None,
        "Most memory a call may take for what it keeps: 500MB, 1.5GiB.",
        topic=Topic.BUDGET,
        metavar="SIZE",
        shell=str | None,
        shown="no bound",
    )
