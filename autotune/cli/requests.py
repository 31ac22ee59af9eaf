"""What ``postdiff tune`` and ``compare`` run, checked, apart from these so that checking loads nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.cli.models import DType, ModelSource
from autotune.options import CompareOptions, TuneOptions

if TYPE_CHECKING:
    from autotune.cost import Budget
    from autotune.policy import Policy
    from autotune.quality.floor import Floor


@dataclass(frozen=True)
class TuneRequest:
    """A search: of which model, within which budgets, and how. ``options`` name the study and the run's folder.

    ``tiers`` are the budgets' or the floors' names where they become a file of policies, else none. Where there are
    ``floors``, there is one budget at most, which must hold besides.
    """

    source: ModelSource
    budgets: tuple[Budget, ...]
    options: TuneOptions
    device: str
    dtype: DType
    tiers: tuple[str, ...] = ()
    floors: tuple[Floor, ...] = ()
    more_devices: tuple[str, ...] = ()
    """Those on which workers of this search's own run, one on each."""

    @property
    def headings(self) -> tuple[str, ...]:
        """What tells the results apart, for people."""
        return tuple(f"Floor {each}" for each in self.floors) or tuple(f"Budget {each}" for each in self.budgets)

    @property
    def folder(self) -> Path:
        """Of the run."""
        return Path(self.options.run_dir or ".")


@dataclass(frozen=True)
class CompareRequest:
    """A comparison: of which policies for which model, and how. ``options`` name the folder."""

    source: ModelSource
    policies: Mapping[str, Policy]
    options: CompareOptions
    device: str
    dtype: DType
    as_json: bool

    @property
    def folder(self) -> Path:
        """Of the comparison."""
        return Path(self.options.run_dir or ".")
