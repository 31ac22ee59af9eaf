"""Judging at native resolution: above a network's own input size it also sees crops of a picture."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor

from autotune.quality.crops import crops
from autotune.quality.fidelity import feature_distances

__all__ = ["CROPS_OF_A_PICTURE", "FeatureErrors", "crop_features", "has_crops"]

CROPS_OF_A_PICTURE = 4
_SEED = 0
# Of exact pictures: a vector each, of as many runs as searches mostly have.
_KEPT = 64


def has_crops(network: Any, height: int, width: int) -> bool:
    """Whether pictures of this size are larger than what the network sees; one that does not say its side is not."""
    side = getattr(network, "side", None)
    return side is not None and min(height, width) > side


def crop_features(network: Any) -> Callable[[Tensor], Tensor]:
    """Features (n, C, D) of C crops of each of n pictures, of the network's side, at the same places in all of them."""

    def features(pictures: Tensor) -> Tensor:
        parts = crops(pictures, network.side, CROPS_OF_A_PICTURE, _SEED)
        found: Tensor = network.image_features(parts)
        return found.reshape(len(pictures), CROPS_OF_A_PICTURE, -1)

    return features


class FeatureErrors:
    """Distances (n,) of pictures' features to others', pair by pair: of the whole, and above its size of crops too.

    The distance is one minus the cosine; that of crops is their mean, and counts as much as that of the whole. The
    features of the latest exact pictures are kept, for many candidates are compared with the same.
    """

    def __init__(self, network: Any) -> None:
        self._network = network
        self._of_crops = crop_features(network)
        self._kept: OrderedDict[bytes, tuple[Tensor, Tensor | None]] = OrderedDict()

    def __call__(self, pictures: Tensor, exact: Tensor) -> Tensor:
        (whole, parts), (exact_whole, exact_parts) = self._features(pictures), self._exact(exact)
        errors = feature_distances(whole, exact_whole)
        if parts is None or exact_parts is None:
            return errors
        of_parts = feature_distances(parts.flatten(0, 1), exact_parts.flatten(0, 1))
        return (errors + of_parts.reshape(len(pictures), CROPS_OF_A_PICTURE).mean(1)) / 2

    def _features(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        parts = self._of_crops(pictures) if has_crops(self._network, *pictures.shape[-2:]) else None
        return self._network.image_features(pictures), parts

    def _exact(self, pictures: Tensor) -> tuple[Tensor, Tensor | None]:
        content = hashlib.sha256(pictures.contiguous().numpy().tobytes()).digest()
        if content not in self._kept:
            self._kept[content] = self._features(pictures)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(content)
        return self._kept[content]
