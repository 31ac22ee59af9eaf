"""What a user brings to the tuner: a tiny pipeline in a folder, and a file of what it is to depict."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
from PIL import Image

from autotune.models.shipped import demo_assets
from autotune.quality import split
from tests.support.builders import FAMILIES, PROMPTS, TinyFamily

EXAMPLES = 8
"""Prompts, or other rows, to tune on, and as many that are held out."""

SCORER = demo_assets().scorer_dir

# The folders go with the process.
_ROOT = TemporaryDirectory(prefix="postdiff-conformance-")


@dataclass(frozen=True)
class Brought:
    """What the command line is given of a family.

    Attributes:
        model: Folder of the pipeline, with the settings of its calls in ``postdiff.json``.
        rows: What each picture is made from besides its seed; empty where the seed is all.
        options: Of the command line: the file that holds these rows, and the guidance scale.
    """

    family: TinyFamily
    model: Path
    rows: tuple[Mapping[str, Any], ...]
    options: tuple[str, ...]


@cache
def brought(name: str) -> Brought:
    """What a user of that family brings, made once a process."""
    family = FAMILIES[name]
    model = Path(_ROOT.name) / name
    family.make().save_pretrained(model)
    (model / "postdiff.json").write_text(json.dumps({"call": _settings(family)}))
    rows = tuple(_rows(family, model.parent))
    return Brought(family, model, rows, (*_file_of(name, rows), *_guidance(family)))


def _settings(family: TinyFamily) -> dict[str, Any]:
    """Of every call, but for what the tuner sets itself."""
    return {name: value for name, value in family.extra.items() if name not in ("output_type", "guidance_scale")}


def _guidance(family: TinyFamily) -> tuple[str, ...]:
    scale = family.scale[1] if family.guided else family.extra.get("guidance_scale")
    return () if scale is None else ("--guidance-scale", str(scale))


def _rows(family: TinyFamily, folder: Path) -> Iterator[Mapping[str, Any]]:
    if family.text == "none" or family.text == "class":
        return
    for number, prompt in enumerate(_prompts()):
        row = {"prompt": prompt}
        if family.negative is not None:
            row["negative_prompt"] = family.negative
        if family.strength is not None:
            row["image"] = _picture(folder / f"picture-{number}.png", number, family.size)
            row["strength"] = family.strength
        if family.inpaint:
            row["mask_image"] = _mask(folder / "mask.png", family.size)
        yield row


def _file_of(name: str, rows: tuple[Mapping[str, Any], ...]) -> tuple[str, ...]:
    if not rows:
        return ()
    if all(row.keys() == {"prompt"} for row in rows):
        file = Path(_ROOT.name) / "prompts.txt"
        file.write_text("".join(f"{row['prompt']}\n" for row in rows))
        return "--prompts", str(file)
    file = Path(_ROOT.name) / f"{name}.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return "--inputs", str(file)


@cache
def _prompts() -> tuple[str, ...]:
    """Known words in any order, so that all prompts have as many tokens; half of them are held out."""
    words = sorted({word for prompt in PROMPTS for word in prompt.split()})
    numbers = random.Random(0)
    drawn = [" ".join(numbers.sample(words, 7)) for _ in range(8 * EXAMPLES)]
    return tuple(prompt for side in split(drawn) for prompt in islice(side, EXAMPLES))


def _picture(file: Path, seed: int, size: tuple[int, int]) -> str:
    if not file.exists():
        pixels = numpy.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(file)
    return file.name


def _mask(file: Path, size: tuple[int, int]) -> str:
    """White where the picture is to be painted: its right half."""
    height, width = size
    if not file.exists():
        mask = Image.new("L", (width, height))
        mask.paste(255, (width // 2, 0, width, height))
        mask.save(file)
    return file.name
