"""Ways to spoil pictures, each in five strengths, that any objective must notice."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

__all__ = ["LADDERS", "blurred", "compressed", "faded", "modes_dropped", "noisy", "shuffled"]


def noisy(pictures: Tensor, strength: float) -> Tensor:
    """White noise of that standard deviation, as a share of the range of values."""
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    return _bytes(pictures + 255 * strength * noise)


def blurred(pictures: Tensor, strength: float) -> Tensor:
    """A Gaussian of that many pixels."""
    reach = int(3 * strength) + 1
    taps = torch.exp(-(torch.arange(-reach, reach + 1).float() ** 2) / (2 * strength**2))
    taps = (taps / taps.sum()).view(1, 1, -1, 1).expand(3, 1, -1, 1)
    values = F.conv2d(F.pad(pictures.float(), (0, 0, reach, reach), mode="replicate"), taps, groups=3)
    values = F.conv2d(F.pad(values, (reach, reach, 0, 0), mode="replicate"), taps.mT, groups=3)
    return _bytes(values)


def compressed(pictures: Tensor, strength: float) -> Tensor:
    """JPEG of quality ``100 - strength``."""
    decoded = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=int(100 - strength))
        decoded.append(torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1))
    return torch.stack(decoded)


def modes_dropped(pictures: Tensor, strength: float) -> Tensor:
    """That share of the prompts gets the picture of one of the others."""
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))
    dropped = int(strength * len(pictures))
    kept = order[dropped:]
    rows = torch.arange(len(pictures))
    rows[order[:dropped]] = kept[torch.arange(dropped) % len(kept)]
    return pictures[rows]


def shuffled(pictures: Tensor, strength: float) -> Tensor:
    """That share of the prompts exchange their pictures."""
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(0))[: int(strength * len(pictures))]
    rows = torch.arange(len(pictures))
    rows[order] = order.roll(1)
    return pictures[rows]


def faded(pictures: Tensor, strength: float) -> Tensor:
    """That share of the contrast around each picture's mean is lost."""
    values = pictures.float()
    return _bytes(values.lerp(values.mean((1, 2, 3), keepdim=True), strength))


LADDERS: Mapping[str, tuple[Callable[[Tensor, float], Tensor], Sequence[float]]] = {
    "noise": (noisy, (0.05, 0.1, 0.2, 0.35, 0.6)),
    "blur": (blurred, (1, 1.5, 2.2, 3.2, 5)),
    "JPEG": (compressed, (75, 85, 91, 95, 98)),
    "mode dropping": (modes_dropped, (0.1, 0.25, 0.4, 0.6, 0.8)),
    "prompt shuffling": (shuffled, (0.1, 0.25, 0.4, 0.6, 0.9)),
    "contrast loss": (faded, (0.3, 0.5, 0.7, 0.85, 0.95)),
}
"""Name, way and five strengths, from slight to ruinous."""


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
