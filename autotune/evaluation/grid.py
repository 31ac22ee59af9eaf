"""Pictures side by side in one PNG."""

from __future__ import annotations

import math
import os
from pathlib import Path

import torch
from torch import Tensor

_GAP = 2


def save_grid(pictures: Tensor, path: Path, columns: int | None = None) -> None:
    """Write pictures row by row on white.

    Args:
        pictures: (N, 3, H, W) uint8, N >= 1.
        path: The PNG; it appears only when complete.
        columns: Pictures a row; by default as many as make the grid about square.
    """
    from PIL import Image

    count, _, height, width = pictures.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = torch.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), 255, dtype=torch.uint8)
    for index, picture in enumerate(pictures):
        row, column = divmod(index, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        sheet[top : top + height, left : left + width] = picture.permute(1, 2, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    Image.fromarray(sheet.numpy()).save(part, format="PNG")
    os.replace(part, path)
