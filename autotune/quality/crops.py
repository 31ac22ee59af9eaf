"""Crops of pictures at native resolution: what a network of small input cannot see of a large picture as a whole."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["crops"]


def crops(pictures: Tensor, side: int, count: int, seed: int) -> Tensor:
    """Square parts of pictures (N, 3, H, W) uint8, as they are.

    The ``count`` places are drawn once from the seed and are the same in every picture of that size, so that pictures
    of all policies are seen at the same places.

    Args:
        pictures: At least ``side`` pixels a side.
        side: Pixels a side of a crop.
        count: Crops of each picture.
        seed: Of the places.

    Returns:
        (N * count, 3, side, side) uint8, all crops of a picture in succession.

    Raises:
        ValueError: If the pictures are smaller.
    """
    height, width = pictures.shape[-2:]
    if min(height, width) < side:
        raise ValueError(f"Pictures of {height} x {width} pixels have no crop of {side} a side.")
    generator = torch.Generator().manual_seed(seed)
    tops = torch.randint(height - side + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(width - side + 1, (count,), generator=generator).tolist()
    parts = [pictures[..., top : top + side, left : left + side] for top, left in zip(tops, lefts, strict=True)]
    return torch.stack(parts, 1).flatten(0, 1)
