"""Parts of large pictures at their own resolution, for networks that would see them reduced.

A network that takes 224 pixels a side sees nothing of the grain or blur of a picture of 1024. Beside the whole picture
it therefore sees some crops of its own size. Their places are drawn from a seed and the picture's row alone: the same
for all candidates, for any batches, and whether all rows are judged or only the first.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Crops"]

PER_PICTURE = 2
"""Crops of a picture: of 1,024 pixels a side they show a tenth, 64 pictures' show every place several times."""


@dataclass(frozen=True)
class Crops:
    """Square crops of ``side`` pixels, ``count`` of each picture.

    Attributes:
        side: Of a crop in pixels: what the network takes.
        count: Crops of a picture.
        seed: Of their places.

    Raises:
        ValueError: If ``side`` or ``count`` is not positive.
    """

    side: int
    count: int = PER_PICTURE
    seed: int = 0

    def __post_init__(self) -> None:
        if self.side < 1 or self.count < 1:
            raise ValueError(f"There are no {self.count} crops of {self.side} pixels: both must be positive.")

    def needed(self, height: int, width: int) -> bool:
        """Whether the network would see pictures of that size reduced, and a crop fits into them."""
        return min(height, width) >= self.side and max(height, width) > self.side

    def places(self, row: int, height: int, width: int) -> list[tuple[int, int]]:
        """Upper left corners (top, left) of the crops of the picture in that row.

        Raises:
            ValueError: If a crop does not fit.
        """
        if min(height, width) < self.side:
            raise ValueError(f"Crops of {self.side} pixels do not fit into pictures of {height} x {width}.")
        draw = random.Random(f"{self.seed} {row}")
        return [(draw.randint(0, height - self.side), draw.randint(0, width - self.side)) for _ in range(self.count)]

    def of(self, pictures: Tensor, first_row: int = 0) -> Tensor:
        """Crops (count x N, 3, side, side) of pictures (N, 3, H, W): one of each picture, then another one of each.

        Args:
            pictures: Of consecutive rows.
            first_row: Number of the first picture's row.

        Raises:
            ValueError: If a crop does not fit.
        """
        height, width = pictures.shape[-2:]
        places = [self.places(first_row + index, height, width) for index in range(len(pictures))]
        return torch.stack(
            [
                picture[:, top : top + self.side, left : left + self.side]
                for number in range(self.count)
                for picture, (top, left) in zip(pictures, (each[number] for each in places), strict=True)
            ]
        )
