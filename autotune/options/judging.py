"""Who judges pictures, and by what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from autotune.core.errors import InputError, did_you_mean
from autotune.options.declare import OptionError, Topic, option
from autotune.options.given import AnyNetwork, AnyScorer
from autotune.quality.panel import DEFAULT_PANEL, TEXTURES, Panel, parse_judges

Objective = Literal["quality", "fidelity"]


@dataclass(frozen=True, kw_only=True)
class LastRoundOptions:
    """Who judges the last round beside the judges of the search."""

    second_opinion: str | None = option(
        None,
        "A judge of the last round alone, which must agree; 'none' asks nobody.",
        topic=Topic.JUDGES,
        metavar="JUDGE",
        shown=TEXTURES,
    )


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Who judges pictures, and by what; None leaves it to the model or the default."""

    objective: Objective = option(
        "quality",
        "quality: by reference and prompts; fidelity: like the full run's pictures.",
        topic=Topic.JUDGES,
    )
    judges: Sequence[str] | Mapping[str, float] | None = option(
        None,
        "Judge of the loss, NAME or NAME:WEIGHT; repeat it for a panel.",
        topic=Topic.JUDGES,
        metavar="JUDGE",
        flag="--judge",
        shell=list[str] | None,
        shown=", ".join(Panel(DEFAULT_PANEL).texts),
    )
    error_ceiling: float | None = option(
        None,
        "Largest error of a policy that may win: 0 is the exact run, 1 coarse pictures.",
        topic=Topic.JUDGES,
        shown="none",
        least=0,
    )
    error_pictures: int | None = option(
        None,
        "First pictures whose error to the exact run is measured.",
        topic=Topic.JUDGES,
        shown="8 to 32, by --images",
        least=1,
    )
    distance: str | None = option(
        None,
        "Estimator of the distance to the reference, see autotune.quality.estimators.",
        topic=Topic.JUDGES,
        shell=None,
    )
    weight_fd: float | None = option(
        None, "Weight of distance, with alignment alone.", topic=Topic.JUDGES, shown="1", least=0
    )
    weight_clip: float | None = option(
        None, "Weight of alignment, with distance alone.", topic=Topic.JUDGES, shown="4", least=0
    )
    scorer: AnyScorer | None = option(
        None,
        "open_clip judge: folder, hf-hub:OWNER/MODEL or ARCHITECTURE/WEIGHTS.",
        topic=Topic.JUDGES,
        shell=str | None,
        shown="the model's own",
    )
    network: AnyNetwork | None = option(
        None,
        "Network for distance: efficientnet-lite0, inception, timm:NAME or open_clip's.",
        topic=Topic.JUDGES,
        flag="--features",
        shell=str | None,
        shown="scorer",
    )

    @property
    def weights(self) -> tuple[float | None, float | None]:
        """Of the distance to the reference and of the alignment with the prompts, as they were given."""
        return self.weight_fd, self.weight_clip

    def __post_init__(self) -> None:
        """Refuse an objective that is none, judges that are none, and weights that do not go with them.

        Raises:
            InputError: there is no such objective, or the weights do not go with it.
        """
        if self.objective not in get_args(Objective):
            raise InputError(
                f"there is no objective called {self.objective!r}{did_you_mean(self.objective, get_args(Objective))}"
            )
        if self.objective == "fidelity" and self.weights != (None, None):
            raise OptionError("<objective> fidelity: has no weights; leave them out, or take <objective> quality")
        given = [weight for weight in self.weights if weight is not None]
        if not all(0 <= weight < float("inf") for weight in given) or self.weights == (0, 0):
            fd, clip = ("its default" if weight is None else f"{weight:g}" for weight in self.weights)
            raise OptionError(f"<weight_fd> {fd} and <weight_clip> {clip} must not be negative, nor both zero")
        if self.error_pictures is not None and not self.error_pictures >= 1:
            raise OptionError(f"<error_pictures> is {self.error_pictures}; give 1 or more")
        if self.error_ceiling is not None and not 0 < self.error_ceiling < float("inf"):
            raise OptionError(f"<error_ceiling> is {self.error_ceiling:g}; give a number above 0")
        if not self.judges:
            # The shell's empty list, of an option that nobody gave.
            object.__setattr__(self, "judges", None)
            return
        if self.objective == "fidelity" or self.weights != (None, None):
            raise OptionError(
                "<judges> names all judges with their weights; leave <objective>, <weight_fd> and <weight_clip> out"
            )
        Panel(parse_judges(self.judges))
