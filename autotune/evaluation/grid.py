"""Pictures side by side in one PNG: a row per prompt and a column per run, or as many of one run as make it square."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_SIDE = 128
_GAP = 8
_FONT_SIZE = 14
_LINE = 18
_LETTER = 7.5
_WHITE = 255
_BACKGROUND, _INK, _FAINT = "white", "black", (96, 96, 96)


@dataclass(frozen=True, eq=False)
class Column:
    """Pictures of one run: (N, 3, H, W) uint8, the i-th of the i-th prompt. ``note`` stands under the title."""

    title: str
    pictures: NDArray[np.uint8]
    note: str = ""


def square(pictures: Tensor) -> list[Column]:
    """Pictures (N, 3, H, W) uint8, N >= 1, row by row in a grid about square; its last row may be part white."""
    count = len(pictures)
    width = math.ceil(math.sqrt(count))
    rows = math.ceil(count / width)
    sheet = np.full((rows * width, *pictures.shape[1:]), _WHITE, dtype=np.uint8)
    sheet[:count] = pictures.numpy()
    return [Column("", sheet[first::width]) for first in range(width)]


def save_grid(columns: Sequence[Column], prompts: Sequence[str] | None, path: Path) -> None:
    """Write the grid as PNG; ``path`` holds either its old content or the whole picture.

    Pictures are enlarged by a whole factor without smoothing, so that what is seen was made. Without ``prompts``
    nothing stands beside the rows.

    Raises:
        ValueError: there is no column or no row, or a column has not one picture of the common size per row.
    """
    count = len(columns[0].pictures if columns and prompts is None else prompts or ())
    if not columns or not count:
        raise ValueError("a grid needs at least one column and one row")
    shape = (count, *columns[0].pictures.shape[1:])
    for column in columns:
        if column.pictures.shape != shape or column.pictures.dtype != np.uint8:
            raise ValueError(f"column {column.title!r} holds {column.pictures.shape}, expected uint8 of {shape}")
    sheet = _draw(columns, count, prompts or ())
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        sheet.save(part, format="PNG")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _draw(columns: Sequence[Column], rows: int, prompts: Sequence[str]) -> Image.Image:
    height, width = columns[0].pictures.shape[2:]
    factor = max(1, -(-_LEAST_SIDE // min(height, width)))
    height, width = height * factor, width * factor
    letters = int(width / _LETTER)
    captions = [textwrap.wrap(prompt, letters, max_lines=height // _LINE, placeholder=" ...") for prompt in prompts]
    heads = [[*textwrap.wrap(column.title, letters), *textwrap.wrap(column.note, letters)] for column in columns]
    lines = max(map(len, heads))
    top = _GAP + (lines * _LINE + _GAP if lines else 0)

    # The first column of the sheet holds the prompts.
    left = _GAP + (width + _GAP if prompts else 0)
    size = (left + len(columns) * (width + _GAP), top + rows * (height + _GAP))
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for row, caption in enumerate(captions):
        y = top + row * (height + _GAP) + (height - len(caption) * _LINE) // 2
        draw.multiline_text((_GAP, y), "\n".join(caption), _INK, font, spacing=_LINE - _FONT_SIZE)
    for position, (column, head) in enumerate(zip(columns, heads, strict=True)):
        x = left + position * (width + _GAP)
        title_lines = len(textwrap.wrap(column.title, letters))
        for line, text in enumerate(head):
            draw.text((x, _GAP + line * _LINE), text, _INK if line < title_lines else _FAINT, font)
        for row, picture in enumerate(column.pictures):
            image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
            sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), (x, top + row * (height + _GAP)))
    return sheet
