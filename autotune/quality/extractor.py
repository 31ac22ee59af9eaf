"""What all feature networks have in common: pictures in, one vector each out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from autotune.quality.tensors import check_judged

__all__ = ["FeatureNetwork", "Features", "ImageFeatures", "Preprocessing"]


@dataclass(frozen=True)
class Preprocessing:
    """Resizing and normalisation as a network was trained with, without cropping.

    Attributes:
        size: Height and width.
        mean: Of each channel, in pictures of 0..1.
        std: Of each channel.
        mode: ``bicubic`` or ``bilinear``; both antialiased.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    mode: str = "bicubic"

    def __call__(self, images: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) uint8 as (N, 3, *size) float32."""
        pictures = images.float() / 255
        if pictures.shape[-2:] != self.size:
            # Bicubic overshoots at edges; a picture has no values outside of 0..1.
            pictures = F.interpolate(pictures, self.size, mode=self.mode, antialias=True).clamp(0, 1)
        mean, std = (pictures.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (pictures - mean) / std


class ImageFeatures(Protocol):
    """What a distance needs of a network; every :class:`autotune.quality.FeatureNetwork` is one."""

    def image_features(self, images: Tensor) -> Tensor: ...


class Features(ImageFeatures, Protocol):
    """What scoring needs of an image-text model; :class:`autotune.quality.Scorer` is one."""

    def text_features(self, prompts: Sequence[str]) -> Tensor: ...


class FeatureNetwork:
    """A frozen network that turns pictures into features.

    Args:
        name: What the network is called.
        network: (n, 3, h, w) float32 in, (n, D) out.
        preprocess: (n, 3, H, W) uint8 in, what ``network`` takes out.
        device: Where the network lies and the features stay.
        batch_size: Most pictures per forward pass.
        side: Pixels a side of what the network sees, the shorter one; by default what ``preprocess`` resizes to.
    """

    def __init__(
        self,
        name: str,
        network: Callable[[Tensor], Tensor],
        preprocess: Callable[[Tensor], Tensor],
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 64,
        side: int | None = None,
    ) -> None:
        self.name = name
        self.side = min(preprocess.size) if side is None and isinstance(preprocess, Preprocessing) else side
        self.device = torch.device(device)
        self._network = network
        self._preprocess = preprocess
        self._batch_size = batch_size

    @torch.no_grad()
    def image_features(self, images: Tensor | Iterable[Tensor]) -> Tensor:
        """Features of pictures, each resized as a whole to the network's size (nothing is cropped).

        Args:
            images: (N, 3, H, W) uint8, N >= 1; or such tensors one after the other, of any sizes, of
                which no more than one is held at a time.

        Returns:
            (N, D) float32.

        Raises:
            ValueError: If shape or type differ, or there is no picture.
            InputError: If a feature is not finite.
        """
        features = [self._features(batch) for batch in _batches(images, self._batch_size)]
        if not features:
            raise ValueError("Expected at least one picture, got none.")
        return check_judged(torch.cat(features), self.name)

    def _features(self, images: Tensor) -> Tensor:
        return self._network(self._preprocess(images.to(self.device))).float()


def _batches(images: Tensor | Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The pictures in tensors of at most ``size``."""
    for part in (images,) if isinstance(images, Tensor) else images:
        if part.dtype != torch.uint8 or part.ndim != 4 or part.shape[1] != 3 or len(part) == 0:
            raise ValueError(f"Expected pictures (N, 3, H, W) in uint8, got {tuple(part.shape)} in {part.dtype}.")
        yield from torch.split(part, size)
