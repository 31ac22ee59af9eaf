"""All that a search may be asked."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.options.declare import OptionError
from autotune.options.deployment import DeploymentOptions
from autotune.options.floor import FloorOptions
from autotune.options.judging import JudgeOptions, LastRoundOptions
from autotune.options.pictures import HeldOutOptions
from autotune.options.running import RunOptions
from autotune.options.searching import SearchOptions


# Fields come from the last class first: so pictures, judges, search and deployment.
@dataclass(frozen=True, kw_only=True)
class SetupOptions(DeploymentOptions, SearchOptions, LastRoundOptions, JudgeOptions, HeldOutOptions):
    """What a search is prepared from, besides its model and budget: all that its workers must know too."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions(FloorOptions, RunOptions, SetupOptions):
    """What :func:`autotune.tune` and ``postdiff tune`` take, besides model and budget."""

    def __post_init__(self) -> None:
        """Refuse what cannot go together.

        Raises:
            OptionError: it does not.
        """
        FloorOptions.__post_init__(self)
        RunOptions.__post_init__(self)
        JudgeOptions.__post_init__(self)
        if self.explain and self.floor is not None:
            raise OptionError("<explain> compares budgets; leave it out, or <max_loss> and <max_change>")
