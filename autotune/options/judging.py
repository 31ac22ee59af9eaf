"""Who judges pictures, and by what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from autotune.core.errors import InputError, did_you_mean
from autotune.options.declare import OptionError, option
from autotune.options.given import AnyNetwork, AnyScorer

Objective = Literal["quality", "fidelity"]


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Who judges pictures, and by what; None leaves it to the model or the default."""

    objective: Objective = option(
        "quality", "quality: like the reference and the prompts; fidelity: like the full run's own pictures."
    )
    distance: str | None = option(
        None, "Estimator of the distance to the reference, see autotune.quality.estimators.", shell=None
    )
    weight_fd: float | None = option(None, "Of the distance to the reference, in quality.", shown="1", least=0)
    weight_clip: float | None = option(None, "Of the alignment with the prompts, in quality.", shown="4", least=0)
    scorer: AnyScorer | None = option(
        None,
        "open_clip model that judges: folder, hf-hub:OWNER/MODEL or ARCHITECTURE/WEIGHTS.",
        shell=str | None,
        shown="the model's own, else a CLIP ViT-B/32 from the hub",
    )
    network: AnyNetwork | None = option(
        None,
        "Network that the distance is taken in: efficientnet-lite0, inception, timm:NAME or an open_clip model.",
        flag="--features",
        shell=str | None,
        shown="the scorer",
    )

    @property
    def weights(self) -> tuple[float | None, float | None]:
        """Of the distance to the reference and of the alignment with the prompts, as they were given."""
        return self.weight_fd, self.weight_clip

    def __post_init__(self) -> None:
        """Refuse an objective that is none, and weights that it has none of or that make it nothing.

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
