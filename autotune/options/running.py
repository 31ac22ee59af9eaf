"""How long a run goes on, where it keeps what it finds, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotune.options.declare import OptionError, Topic, option


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How long a search goes on, where it keeps what it finds, and what it shows."""

    trials: int = option(48, "Candidates to evaluate.", topic=Topic.SEARCH, least=1)
    timeout: float = option(
        240.0,
        "No candidate begins later: 300 (seconds), 5m or 1h. Known recipes always run.",
        topic=Topic.FIRST,
        metavar="TIME",
        shell=str,
        written="4m",
    )
    storage: str | None = option(
        None, "Database URL of the study.", topic=Topic.PLACE, shown="study.db in --out", metavar="URL"
    )
    study_name: str | None = option(
        None, "An existing one is resumed.", topic=Topic.PLACE, shown="from model or study, and budget"
    )
    run_dir: str | Path | None = option(
        None,
        "The run's folder.",
        topic=Topic.FIRST,
        flag="--out",
        shell=Path | None,
        shown="runs/STUDY_NAME",
        metavar="FOLDER",
    )
    explain: bool = option(
        False,
        "Also find out at six budgets if fewer or cheaper steps are better; takes several times as long.",
        topic=Topic.SEARCH,
    )
    quiet: bool = option(False, "Show errors only.", topic=Topic.OUTPUT)

    def __post_init__(self) -> None:
        """Refuse a search that is none.

        Raises:
            OptionError: there is nothing to do, or no time for it.
        """
        if self.trials < 1:
            raise OptionError(f"<trials> is {self.trials}; give at least 1")
        if not self.timeout >= 0:
            raise OptionError(f"<timeout> is {self.timeout:g} seconds; give 0 or more")
