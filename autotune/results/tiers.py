"""``tiers/tiers.json``: pictures of the same held-out inputs by the full run and by every tier of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from autotune.core.records import Record, read_record, write_atomically
from autotune.results.gallery import picture_image, save_webp

if TYPE_CHECKING:
    from torch import Tensor

FOLDER = "tiers"
FILE = "tiers.json"
POLICIES = "policies.json"

MOST_SHOWN = 8
"""Inputs whose pictures are kept."""


class TierRow(Record):
    """A tier's pictures: files beside the record, one for each input. ``report`` is the page of its search, if any."""

    name: str
    files: tuple[str, ...]
    report: str | None = None


class TierPictures(Record):
    """``inputs`` are what people call the held-out inputs; the first row is the full run's."""

    model: str
    noun: str
    inputs: tuple[str, ...]
    rows: Annotated[tuple[TierRow, ...], Field(min_length=1)]


def read_tier_pictures(folder: Path) -> TierPictures | None:
    """What a run's folder keeps of its tiers; None where it has none.

    Raises:
        InputError: the file is damaged.
    """
    return read_record(TierPictures, folder / FOLDER / FILE, "delete it and repeat the search")


def keep_tier_pictures(
    folder: Path,
    model: str,
    noun: str,
    inputs: Sequence[str],
    pictures: Mapping[str, Tensor],
    reports: Mapping[str, str],
) -> None:
    """Write the pictures, and last of all what names them.

    Args:
        folder: the run's.
        model: its name.
        noun: what the inputs are.
        inputs: by what people call them.
        pictures: (n, 3, H, W) uint8 of these inputs, by tier, the full run's first.
        reports: pages of the tiers' own searches, relative to the run's folder.
    """
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    shown = inputs[:MOST_SHOWN]
    rows = []
    for name, made in pictures.items():
        files = tuple(f"{name}-{number}.webp" for number in range(len(shown)))
        for file, picture in zip(files, made, strict=False):
            save_webp(picture_image(picture), folder / FOLDER / file)
        rows.append(TierRow(name=name, files=files, report=reports.get(name)))
    found = TierPictures(model=model, noun=noun, inputs=tuple(shown), rows=tuple(rows))
    write_atomically(folder / FOLDER / FILE, found.model_dump_json(indent=1) + "\n")
