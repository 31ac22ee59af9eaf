"""Judging at native resolution: above a network's own input size it also sees crops of a picture."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor

from autotune.quality.crops import Crops
from autotune.quality.fidelity import feature_distances

__all__ = ["FeatureErrors", "crop_features", "has_crops"]

# Features of exact pictures: a vector each, of as many runs as searches mostly have.
_KEPT = 64


def has_crops(network: Any, height: int, width: int) -> bool:
    """Whether the network sees pictures of this size reduced; of one that does not say its side nothing is known."""
    side = getattr(network, "side", None)
    return side is not None and Crops(side).needed(height, width)


def crop_features(network: Any) -> Callable[[Tensor, int], Tensor]:
    """What gives features (n, C, D) of C crops, of the network's side, of each of n pictures.

    Its second argument is the number of the first picture's row: places are a row's own, and the same for all runs.
    """

    def features(pictures: Tensor, first_row: int) -> Tensor:
        crops = Crops(network.side)
        found: Tensor = network.image_features(crops.of(pictures, first_row))
        return found.reshape(crops.count, len(pictures), -1).transpose(0, 1)

    return features


class FeatureErrors:
    """Distances (n,) of pictures' features to others', pair by pair: of the whole, and above its size of crops too.

    The distance is one minus the cosine; that of crops is their mean, and counts as much as that of the whole. The
    features of the latest exact pictures are kept, for many candidates are compared with the same.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._of_crops = crop_features(network)
        self._kept: OrderedDict[tuple[bytes, int], tuple[Tensor, Tensor | None]] = OrderedDict()

    def __call__(self, pictures: Tensor, exact: Tensor, first_row: int = 0) -> Tensor:
        whole, parts = self._features(pictures, first_row)
        exact_whole, exact_parts = self._exact(exact, first_row)
        errors = feature_distances(whole, exact_whole)
        if parts is None or exact_parts is None:
            return errors
        of_parts = feature_distances(parts.flatten(0, 1), exact_parts.flatten(0, 1))
        return (errors + of_parts.reshape(len(pictures), -1).mean(1)) / 2

    def _features(self, pictures: Tensor, first_row: int) -> tuple[Tensor, Tensor | None]:
        cropped = has_crops(self._network, *pictures.shape[-2:])
        return self._network.image_features(pictures), self._of_crops(pictures, first_row) if cropped else None

    def _exact(self, pictures: Tensor, first_row: int) -> tuple[Tensor, Tensor | None]:
        content = hashlib.sha256(pictures.contiguous().numpy().tobytes()).digest(), first_row
        if content not in self._kept:
            self._kept[content] = self._features(pictures, first_row)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(content)
        return self._kept[content]
