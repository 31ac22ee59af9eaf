"""Ways to spoil pictures, each in five strengths, that any objective must notice."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

__all__ = [
    "FINE_LADDERS",
    "LADDERS",
    "blocky",
    "blurred",
    "compressed",
    "faded",
    "grainy",
    "modes_dropped",
    "noisy",
    "parts_lost",
    "shuffled",
]

_BLOCK = 8
_PART = 6


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


def grainy(pictures: Tensor, strength: float) -> Tensor:
    """White noise with a standard deviation of that many grey levels."""
    return noisy(pictures, strength / 255)


def blocky(pictures: Tensor, strength: float) -> Tensor:
    """Blocks of 8x8 pixels, each that much nearer to its mean colour."""
    means = F.avg_pool2d(pictures.float(), _BLOCK)
    flat = F.interpolate(means, scale_factor=_BLOCK, mode="nearest")
    return _bytes(pictures.float().lerp(flat, strength))


def parts_lost(pictures: Tensor, strength: float) -> Tensor:
    """So many parts of 6x6 pixels with the most detail are filled from what surrounds them: eyes, buttons, letters."""
    values = pictures.float()
    spread = F.avg_pool2d(values.mean(1, keepdim=True).square(), _PART, 1)
    spread = (spread - F.avg_pool2d(values.mean(1, keepdim=True), _PART, 1).square())[:, 0, 1:-1, 1:-1]
    for picture, detail in zip(values, spread, strict=True):
        for _ in range(int(strength)):
            top, left = divmod(int(detail.argmax()), detail.shape[1])
            # No part twice: what overlaps this one is out.
            detail[max(0, top - _PART + 1) : top + _PART, max(0, left - _PART + 1) : left + _PART] = -1
            _fill(picture, top + 1, left + 1)
    return _bytes(values)


def _fill(picture: Tensor, top: int, left: int) -> None:
    """Halfway between the edges above and below and those left and right of the part, in place."""
    bottom, right = top + _PART, left + _PART
    share = torch.arange(1, _PART + 1) / (_PART + 1)
    down = torch.lerp(picture[:, top - 1, None, left:right], picture[:, bottom, None, left:right], share[:, None])
    across = torch.lerp(picture[:, top:bottom, left - 1, None], picture[:, top:bottom, right, None], share)
    picture[:, top:bottom, left:right] = (down + across) / 2


LADDERS: Mapping[str, tuple[Callable[[Tensor, float], Tensor], Sequence[float]]] = {
    "noise": (noisy, (0.05, 0.1, 0.2, 0.35, 0.6)),
    "blur": (blurred, (1, 1.5, 2.2, 3.2, 5)),
    "JPEG": (compressed, (75, 85, 91, 95, 98)),
    "mode dropping": (modes_dropped, (0.1, 0.25, 0.4, 0.6, 0.8)),
    "prompt shuffling": (shuffled, (0.1, 0.25, 0.4, 0.6, 0.9)),
    "contrast loss": (faded, (0.3, 0.5, 0.7, 0.85, 0.95)),
}
"""Name, way and five strengths, from slight to ruinous."""

FINE_LADDERS: Mapping[str, tuple[Callable[[Tensor, float], Tensor], Sequence[float]]] = {
    "grain": (grainy, (1, 2, 4, 6, 8)),
    "slight blur": (blurred, (0.3, 0.4, 0.5, 0.7, 0.9)),
    "blocks": (blocky, (0.05, 0.1, 0.2, 0.3, 0.5)),
    "lost parts": (parts_lost, (1, 2, 3, 4, 6)),
}
"""What people see and a network that sees pictures reduced, or as a whole, hardly does."""


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)
