"""Pictures side by side: one row per prompt, one column per way of making them."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_LEAST_SIDE = 128
_GAP = 8
_FONT_SIZE = 14
_LINE = 18
_LETTER = 7.5
_BACKGROUND, _INK, _FAINT = "white", "black", (96, 96, 96)


@dataclass(frozen=True, eq=False)
class Column:
    """Pictures made one way: (N, 3, H, W) uint8, the i-th of the i-th prompt. ``note`` stands under the title."""

    title: str
    pictures: NDArray[np.uint8]
    note: str = ""


def save_grid(columns: Sequence[Column], prompts: Sequence[str], path: Path) -> None:
    """Write the grid as PNG; ``path`` holds either its old content or the whole picture.

    Pictures are enlarged by a whole factor without smoothing, so that what is seen was made.

    Raises:
        ValueError: there is no column or no prompt, or a column has not one picture of the common size per prompt.
    """
    if not columns or not prompts:
        raise ValueError("a grid needs at least one column and one prompt")
    shape = (len(prompts), *columns[0].pictures.shape[1:])
    for column in columns:
        if column.pictures.shape != shape or column.pictures.dtype != np.uint8:
            raise ValueError(f"column {column.title!r} holds {column.pictures.shape}, expected uint8 of {shape}")
    sheet = _draw(columns, prompts)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        sheet.save(part, format="PNG")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _draw(columns: Sequence[Column], prompts: Sequence[str]) -> Image.Image:
    height, width = columns[0].pictures.shape[2:]
    factor = max(1, -(-_LEAST_SIDE // min(height, width)))
    height, width = height * factor, width * factor
    letters = int(width / _LETTER)
    captions = [textwrap.wrap(prompt, letters, max_lines=height // _LINE, placeholder=" ...") for prompt in prompts]
    heads = [[*textwrap.wrap(column.title, letters), *textwrap.wrap(column.note, letters)] for column in columns]
    top = _GAP + max(map(len, heads)) * _LINE + _GAP

    # The first column of the sheet holds the prompts.
    size = ((len(columns) + 1) * (width + _GAP) + _GAP, top + len(prompts) * (height + _GAP))
    sheet = Image.new("RGB", size, _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for row, caption in enumerate(captions):
        y = top + row * (height + _GAP) + (height - len(caption) * _LINE) // 2
        draw.multiline_text((_GAP, y), "\n".join(caption), _INK, font, spacing=_LINE - _FONT_SIZE)
    for position, (column, head) in enumerate(zip(columns, heads, strict=True), 1):
        x = _GAP + position * (width + _GAP)
        title_lines = len(textwrap.wrap(column.title, letters))
        for line, text in enumerate(head):
            draw.text((x, _GAP + line * _LINE), text, _INK if line < title_lines else _FAINT, font)
        for row, picture in enumerate(column.pictures):
            image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
            sheet.paste(image.resize((width, height), Image.Resampling.NEAREST), (x, top + row * (height + _GAP)))
    return sheet
