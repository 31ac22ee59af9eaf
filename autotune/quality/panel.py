"""Who judges: the judges a loss may be made of, by name, and a panel of some of them with their weights.

A judge is one entry of :data:`JUDGES`. To add one, write a function that loads it and add a line there; everything else
(``--judge NAME``, its unit, intervals, pruning, the last round, the report) follows. There are three kinds:

- ``distribution``: gives features, (n, 3, H, W) uint8 -> (n, D), or (n, C, D) where it looks at C places of a picture.
  Its term is the distance of a policy's features to those of a reference, by the objective's estimator.
- ``paired``: gives numbers of pairs, two tensors (n, 3, H, W) uint8 -> (n,), zero for identical pictures and larger for
  more different ones. Its term is the mean over the first pictures, each paired with that of the exact run of the same
  intent (:mod:`autotune.evaluation.intent`). Where it gives signed changes (n, D) instead, the term is the mean over
  the D of the absolute mean over pictures: what changes in all pictures alike. ``of_rows`` makes any other number of
  what it gives, and where the judge ``beside`` it looks at all pictures, all have a part in the mean.
- ``alignment``: gives numbers of pictures with their prompts, (n, 3, H, W) uint8 and n texts -> (n,), higher is better.

Every term is 0 for the full run and 1 for its coarse pictures (for ``alignment`` itself: for the wrong prompts).

A function that loads gets :class:`Sources` and returns such a function. It raises ``InputError`` with one sentence
where weights or packages are missing, saying where to put them, and imports what is heavy itself: nothing here loads
torch.

Example:
    >>> def load_brightness(sources):
    ...     return lambda pictures, exact: (pictures.float() - exact.float()).mean((1, 2, 3)).abs() / 255
    >>> judge = Judge("paired", load_brightness, "difference of mean brightness")
    >>> parse_judges(["distance", "alignment:2"])
    {'distance': 0.5, 'alignment': 2.0}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from autotune.core.errors import InputError, did_you_mean
from autotune.quality.judges import JUDGES as HUB
from autotune.quality.judges import measure

if TYPE_CHECKING:
    from torch import Tensor

    from autotune.quality.estimators import Measure
    from autotune.quality.reference import Reference

__all__ = [
    "ALIGNMENT",
    "CROPS",
    "DEFAULT_PANEL",
    "DISTANCE",
    "DISTANCE_TEXTURES",
    "DRIFT",
    "ERROR",
    "FIDELITY",
    "JUDGES",
    "Judge",
    "Panel",
    "TEXTURES",
    "Sources",
    "parse_judges",
]

DISTANCE, ALIGNMENT, ERROR, FIDELITY, CROPS = "distance", "alignment", "error", "fidelity", "distance-crops"
DRIFT, TEXTURES, DISTANCE_TEXTURES = "drift", "textures", "distance-textures"

Kind = Literal["distribution", "paired", "alignment"]


@dataclass(frozen=True)
class Sources:
    """What a judge may be made of.

    Attributes:
        scorer: The image-text model, if there is one; has ``image_features`` and ``text_features``.
        network: What the distance is taken in: another network, else the scorer; has ``image_features``.
        device: Where networks run.
    """

    scorer: Any
    network: Any
    device: str = "cpu"


@dataclass(frozen=True)
class Judge:
    """A judge as the registry has it.

    Attributes:
        kind: What it gives, see the head of this module.
        load: Makes the function; None where the number follows from the features of the scorer or the network.
        about: What it measures, for people.
        measure: Of a distribution, makes distances to a reference, where the objective's estimator does not suit its
            features.
        unit: Of a distribution, what one stands for, by its features of the full run's coarse pictures and of the full
            run's; else it is how much farther from the reference the coarse ones are.
        offsets: Another judge of the panel, whose loss is all that its gain makes up for.
        few: Whether its distance tells policies apart by few pictures too.
        above_side: Whether it has something to say only of pictures larger than the network's own input.
        of_rows: Of pairs, what its number is instead of a mean: takes all that it gave and selections (B, N) of the
            pictures, returns (B,).
        beside: Of pairs, a judge that says of all pictures how they differ from the *full* run's, by which the mean is
            mended (:mod:`autotune.quality.regression`): ``fidelity``, which always does, or for signed changes the
            distribution whose features these are changes of, where it is on the panel.
        most: Above which its term says no more: a picture that is another one altogether may be as good.
        by_row: Whether its function takes the number of the first picture's row as its last argument, for it looks at
            other places in every row.
    """

    kind: Kind
    load: Callable[[Sources], Callable[..., Tensor]] | None
    about: str
    measure: Callable[[Reference], Measure] | None = None
    unit: Callable[[Tensor, Tensor], float] | None = None
    offsets: str | None = None
    few: bool = False
    above_side: bool = False
    of_rows: Callable[[Tensor, Tensor], Tensor] | None = None
    beside: str | None = None
    most: float | None = None
    by_row: bool = False


def _error(sources: Sources) -> Callable[[Tensor, Tensor, int], Tensor]:
    from autotune.quality.native import FeatureErrors

    return FeatureErrors(sources.scorer or sources.network)


def _crops(sources: Sources) -> Callable[[Tensor, int], Tensor]:
    from autotune.quality.native import crop_features

    return crop_features(sources.network)


def _textures(sources: Sources) -> Callable[[Tensor], Tensor]:
    from autotune.quality.wavelets import textures

    return textures


def _from_mean(reference: Reference) -> Measure:
    from autotune.quality.wavelets import from_mean

    return from_mean(reference.gaussian)


def _means_apart(coarse: Tensor, full: Tensor) -> float:
    """The drift's unit, so that weights say what can pay; and of soft real pictures coarse ones need not be farther."""
    import torch

    from autotune.quality.wavelets import drift

    return float(drift(coarse.double() - full.double(), torch.arange(len(full))[None]))


def _drift(sources: Sources) -> Callable[[Tensor, Tensor], Tensor]:
    from autotune.quality.wavelets import textures

    return lambda pictures, exact: textures(pictures) - textures(exact)


def _both_textures(sources: Sources) -> Callable[[Tensor, Tensor], Tensor]:
    import torch

    from autotune.quality.wavelets import textures

    return lambda pictures, exact: torch.cat([textures(pictures), textures(exact)], 1)


def _band_distances(values: Tensor, rows: Tensor) -> Tensor:
    from autotune.quality.wavelets import band_distances

    return band_distances(values, rows)


def _of_hub(name: str) -> Judge:
    kind = HUB[name].kind

    def load(sources: Sources) -> Callable[..., Tensor]:
        return measure(name, sources.device)

    return Judge("alignment" if kind == "preference" else kind, load, HUB[name].about)


JUDGES: dict[str, Judge] = {
    DISTANCE: Judge("distribution", None, "image features to the reference"),
    ALIGNMENT: Judge("alignment", None, "pictures and prompts, by the scorer"),
    ERROR: Judge(
        "paired",
        _error,
        "the scorer's features, to the exact run of the same intent",
        beside=FIDELITY,
        most=0.5,
        by_row=True,
    ),
    DRIFT: Judge(
        "paired",
        _drift,
        "textures moved alike in all pictures, to the exact run of the same intent",
        beside=DISTANCE_TEXTURES,
    ),
    TEXTURES: Judge(
        "paired",
        _both_textures,
        "Frechet distance of textures by wavelet band, to the exact run of the same intent",
        of_rows=_band_distances,
    ),
    FIDELITY: Judge("paired", None, "image features, to the full run"),
    CROPS: Judge(
        "distribution",
        _crops,
        "features of crops at native resolution to the reference's",
        above_side=True,
        by_row=True,
    ),
    DISTANCE_TEXTURES: Judge(
        "distribution",
        _textures,
        "how far mean textures by wavelet band are from the reference's",
        measure=_from_mean,
        unit=_means_apart,
        offsets=DRIFT,
        few=True,
    ),
    **{name: _of_hub(name) for name in HUB},
}
"""All judges by name; those of :mod:`autotune.quality.judges` are found on the Hub."""

DEFAULT_PANEL: Mapping[str, float] = MappingProxyType(
    {DISTANCE: 0.5, ALIGNMENT: 6.0, ERROR: 1.5, DRIFT: 1.5, CROPS: 0.5, DISTANCE_TEXTURES: 0.5}
)
"""Who judges where nobody says otherwise, with the weights of the terms; those who have nothing to say are left out."""

# The terms that releases before panels knew, in the order in which their studies keep the weights.
_CLASSIC = (DISTANCE, ALIGNMENT, FIDELITY)


@dataclass(frozen=True)
class Panel:
    """Judges with the weights of their terms in the loss.

    Attributes:
        weights: By judge, in the order of the terms. One of weight 0 is measured and has no part in the loss.
        ceiling: The largest error of a feasible policy, 0 being the exact run and 1 its coarse pictures; None is none.

    Raises:
        InputError: There is no such judge, a weight is none, all are 0, or a ceiling is of what nobody measures.
    """

    weights: Mapping[str, float]
    ceiling: float | None = None

    def __post_init__(self) -> None:
        for name, weight in self.weights.items():
            if name not in JUDGES:
                raise InputError(f"there is no judge called {name!r}{did_you_mean(name, JUDGES)}")
            if not 0 <= weight < math.inf:
                raise InputError(f"the weight of judge {name} is {weight:g}; give a number of 0 or more")
        if not any(self.weights.values()):
            raise InputError("no judge has a weight above 0; give one to at least one of them")
        if self.ceiling is not None and not (0 < self.ceiling < math.inf and self.errors):
            raise InputError(
                f"an error ceiling of {self.ceiling:g} needs a number above 0 and a judge of pairs, such as {ERROR}"
            )

    def weight(self, name: str) -> float:
        """Of a judge; 0 where it is not on the panel."""
        return self.weights.get(name, 0.0)

    @property
    def further(self) -> tuple[str, ...]:
        """Judges that look at pictures themselves, beside the first ones' features."""
        return tuple(name for name in self.weights if JUDGES[name].load is not None)

    def of_kind(self, kind: Kind) -> tuple[str, ...]:
        """Those of :attr:`further` that are of a kind."""
        return tuple(name for name in self.further if JUDGES[name].kind == kind)

    @property
    def compares(self) -> bool:
        """Whether a judge of pairs with the exact run has a part in the loss."""
        return any(self.weight(name) for name in self.errors)

    @property
    def errors(self) -> tuple[str, ...]:
        """Judges of pairs with the exact run."""
        return self.of_kind("paired")

    @property
    def regressed(self) -> tuple[str, ...]:
        """Those of :attr:`errors` in whose means all pictures have a part."""
        measured = {FIDELITY, *self.weights}
        return tuple(name for name in self.errors if JUDGES[name].beside in measured)

    @property
    def classic(self) -> tuple[float, ...] | None:
        """Weights of distance, alignment and fidelity where nobody else judges, as earlier releases kept them."""
        if self.ceiling is not None or any(name not in _CLASSIC for name in self.weights):
            return None
        return tuple(self.weight(name) for name in _CLASSIC)

    @property
    def texts(self) -> tuple[str, ...]:
        """As ``--judge`` takes them."""
        return tuple(f"{name}:{weight:g}" for name, weight in self.weights.items())

    def without(self, *names: str) -> Panel:
        """The others.

        Raises:
            InputError: None of them has a weight.
        """
        return Panel({name: weight for name, weight in self.weights.items() if name not in names}, self.ceiling)


def parse_judges(given: Iterable[str] | Mapping[str, float]) -> dict[str, float]:
    """Judges and weights of texts such as ``error:2``; without a weight it is that of the default panel, else 1.

    Raises:
        InputError: A text is none, or names a judge twice.
    """
    if isinstance(given, Mapping):
        return {name: float(weight) for name, weight in given.items()}
    found: dict[str, float] = {}
    for text in [given] if isinstance(given, str) else given:
        name, colon, number = text.strip().partition(":")
        try:
            weight = float(number) if colon else DEFAULT_PANEL.get(name, 1.0)
        except ValueError:
            raise InputError(f"judge {text!r} is no NAME or NAME:WEIGHT; write error:2 for example") from None
        if name in found:
            raise InputError(f"judge {name!r} is named twice; name it once, with one weight")
        found[name] = weight
    return found
