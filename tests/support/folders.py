"""What a user brings to the tuner: a tiny pipeline in a folder, and a file of what it is to depict."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
from PIL import Image

from autotune.models.shipped import demo_assets
from tests.support.builders import FAMILIES, PROMPTS, TinyFamily

_ROWS = 64
# Input pictures that are different.
_PICTURES = 4
# Convolutions take most of the time.
_SMALL = {"UNet2DConditionModel": (16, 16)}

# Of models that take a guidance scale as a mere input.
_SCALES = ("guidance_scale", "distilled_guidance_scale")

SCORER = demo_assets().scorer_dir

# The folders go with the process.
_ROOT = TemporaryDirectory(prefix="postdiff-conformance-")


@dataclass(frozen=True)
class Brought:
    """What the command line is given of a family.

    Attributes:
        size: Height and width of its pictures: smaller than the family's own where that is slow.
        model: Folder of the pipeline, with the settings of its calls in ``postdiff.json``.
        rows: What each picture is made from besides its seed; empty where the seed is all.
        options: Of the command line: the file that holds these rows, and the guidance scale.
    """

    family: TinyFamily
    size: tuple[int, int]
    model: Path
    rows: tuple[Mapping[str, Any], ...]
    options: tuple[str, ...]


@cache
def brought(name: str) -> Brought:
    """What a user of that family brings, made once a process."""
    family, folder = FAMILIES[name], Path(_ROOT.name) / name
    pipe = family.make()
    pipe.save_pretrained(folder)
    (folder / "postdiff.json").write_text(json.dumps({"call": _settings(family)}))
    size = _SMALL.get(type(getattr(pipe, family.denoiser)).__name__, family.size)
    rows = tuple(_rows(family, size, folder))
    return Brought(family, size, folder, rows, (*_file_of(rows, folder), *_guidance(family)))


def _settings(family: TinyFamily) -> dict[str, Any]:
    """Of every call, but for what the tuner sets itself."""
    return {name: value for name, value in family.extra.items() if name not in ("output_type", *_SCALES)}


def _guidance(family: TinyFamily) -> tuple[str, ...]:
    if family.guider:
        return ()
    embedded = next((family.extra[name] for name in _SCALES if name in family.extra), None)
    scale = family.scale[1] if family.guided else embedded
    return () if scale is None else ("--guidance-scale", str(scale))


def _rows(family: TinyFamily, size: tuple[int, int], folder: Path) -> Iterator[Mapping[str, Any]]:
    if family.text != "prompt":
        return
    for number, prompt in enumerate(prompts()):
        row: dict[str, Any] = {"prompt": prompt}
        if family.negative is not None:
            row["negative_prompt"] = family.negative
        if family.strength is not None:
            row["image"] = _picture(folder, number % _PICTURES, size)
            row["strength"] = family.strength
        for argument in family.pictures:
            row[argument] = _picture(folder, number % _PICTURES, size)
        if family.inpaint:
            row["mask_image"] = _mask(folder, size)
        if family.ip_adapters:
            row["ip_adapter_image"] = [_picture(folder, number, size) for number in range(family.ip_adapters)]
        yield row


def _file_of(rows: Sequence[Mapping[str, Any]], folder: Path) -> tuple[str, ...]:
    """The option that holds the rows: prompts in their short form where there is nothing else."""
    if not rows:
        return ()
    if rows[0].keys() == {"prompt"}:
        file = folder / "prompts.txt"
        file.write_text("".join(f"{row['prompt']}\n" for row in rows))
        return "--prompts", str(file)
    file = folder / "inputs.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return "--inputs", str(file)


def prompts() -> list[str]:
    """Known words in any order, so that all prompts have as many tokens."""
    words = sorted({word for prompt in PROMPTS for word in prompt.split()})
    numbers = random.Random(0)
    return [" ".join(numbers.sample(words, 7)) for _ in range(_ROWS)]


def _picture(folder: Path, number: int, size: tuple[int, int]) -> str:
    file = folder / f"picture-{number}.png"
    pixels = numpy.random.default_rng(number).integers(0, 256, (*size, 3), dtype=numpy.uint8)
    Image.fromarray(pixels).save(file)
    return str(file)


def _mask(folder: Path, size: tuple[int, int]) -> str:
    """White where the picture is to be painted: its right half."""
    file = folder / "mask.png"
    height, width = size
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 2, 0, width, height))
    mask.save(file)
    return str(file)
