"""Pictures of the last round for people: the inputs that the policy treats worst, best, and some drawn at random."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import AliasChoices, Field

from autotune.core.errors import InputError, reason_of
from autotune.core.records import Record, read_record, write_atomically
from autotune.policy import Policy
from autotune.quality.panel import ALIGNMENT

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

    from autotune.evaluation.evaluator import Evaluator, Pictures
    from autotune.evaluation.input_pictures import Picture
    from autotune.evaluation.inputs import Row
    from autotune.results.finalists import Finalists

_LOG = logging.getLogger(__name__)

FOLDER = "pictures"
FILE = "pictures.json"

EACH = 4
"""Inputs of each kind."""

# Smaller ones are kept as they are.
_LOSSLESS_SIDE = 256
_QUALITY = 90

# What files of earlier releases call a degradation.
_EARLIER = "harm"

Why = Literal["worst", "best", "random"]
Make = Callable[[Policy, "Sequence[Row]", Sequence[int]], "Pictures"]


class ShownRun(Record):
    """One run. ``key`` is its policy's."""

    name: str
    key: str
    steps: int
    relative_cost: float


class ShownPicture(Record):
    """One run's picture: a file beside the record, its alignment with the prompt, its change from the full run's.

    ``alignment`` is None where there are no prompts.
    """

    file: str
    alignment: float | None
    change: float


class ShownInput(Record):
    """A picture that the pipeline was given: its argument's name, and a file beside the record."""

    name: str
    file: str


class ShownPrompt(Record):
    """A held-out input with one picture of each run. ``degradation`` is what it was chosen by: higher is worse.

    ``prompt`` is what people call it, a prompt by itself; ``given`` are the pictures it holds.
    """

    prompt: str
    seed: int
    why: Why
    degradation: float = Field(validation_alias=AliasChoices("degradation", _EARLIER))
    pictures: tuple[ShownPicture, ...]
    given: tuple[ShownInput, ...] = ()


class Gallery(Record):
    """``prompts`` were chosen among ``among`` pictures, by the degradation of what ``by`` says."""

    runs: tuple[ShownRun, ...]
    by: Literal["alignment", "change"]
    among: int
    prompts: tuple[ShownPrompt, ...]


def read_gallery(folder: Path) -> Gallery | None:
    """The gallery in a run's folder; None where the search has not come so far.

    Raises:
        InputError: the file is damaged.
    """
    return read_record(Gallery, folder / FOLDER / FILE, "delete it and repeat the search")


def keep_gallery(
    folder: Path, finalists: Finalists, evaluator: Evaluator, seeds: Sequence[int], make: Make, size: tuple[int, int]
) -> None:
    """Choose inputs by what the last headline run does to them, make their pictures again and keep them.

    All runs' pictures of the last round would fill a disk; these few are made again, which gives the same ones.
    Nothing is made where an earlier call kept the same.

    Args:
        folder: the run's.
        finalists: whose headline runs are shown.
        evaluator: of the last round.
        seeds: one per input of the evaluator.
        make: makes pictures.
        size: width and height that pictures among the inputs are shown at.
    """
    from autotune.quality.fidelity import feature_distances

    headline_runs = finalists.headline_runs
    outcomes = [evaluator.outcome(run.policy).evaluation for run in headline_runs]
    full = evaluator.full.evaluation
    changes = [feature_distances(outcome.features, full.features) for outcome in outcomes]
    degradation = changes[-1]
    by: Literal["alignment", "change"] = "change"
    if (
        evaluator.objective.panel.weight(ALIGNMENT)
        and full.alignment is not None
        and outcomes[-1].alignment is not None
    ):
        degradation, by = full.alignment - outcomes[-1].alignment, "alignment"
    rows = choose_rows(evaluator.keys, degradation.tolist(), EACH)
    given = [_given(evaluator.rows[row]) for row, _ in rows]
    files = [[f"{run.policy.key}-{row}.webp" for row, _ in rows] for run in headline_runs]
    found = Gallery(
        runs=tuple(
            ShownRun(name=run.name, key=run.policy.key, steps=run.policy.steps, relative_cost=run.cost.relative)
            for run in headline_runs
        ),
        by=by,
        among=len(evaluator.keys),
        prompts=tuple(
            ShownPrompt(
                prompt=evaluator.rows[row].label,
                seed=seeds[row],
                why=why,
                degradation=round(float(degradation[row]), 6),
                pictures=tuple(
                    ShownPicture(
                        file=files[run][place],
                        alignment=_rounded(outcomes[run].alignment, row),
                        change=round(float(changes[run][row]), 6),
                    )
                    for run in range(len(headline_runs))
                ),
                given=tuple(shown for shown, _ in given[place]),
            )
            for place, (row, why) in enumerate(rows)
        ),
    )
    wanted = [folder / FOLDER / name for names in files for name in names]
    wanted += [folder / FOLDER / shown.file for held in given for shown, _ in held]
    if found == _kept(folder) and all(path.is_file() for path in wanted):
        return
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    for shown, picture in itertools.chain.from_iterable(given):
        save_webp(picture.opened(size), folder / FOLDER / shown.file)
    inputs, chosen = [evaluator.rows[row] for row, _ in rows], [seeds[row] for row, _ in rows]
    for run, names in zip(headline_runs, files, strict=True):
        with closing(make(run.policy, inputs, chosen)) as batches:
            for name, made in zip(names, itertools.chain.from_iterable(batches), strict=True):
                save_webp(picture_image(made), folder / FOLDER / name)
    # Last, so that it never names a picture that is not there.
    write_atomically(folder / FOLDER / FILE, found.model_dump_json(indent=1) + "\n")


def shown_pictures(rows: Sequence[Row], size: tuple[int, int]) -> dict[str, Tensor]:
    """Pictures that rows hold, (n, 3, H, W) uint8 of one size (width, height), by the names of their arguments."""
    import numpy
    import torch

    def pixels(row: Row, name: str) -> Tensor:
        return torch.from_numpy(numpy.array(row.pictures[name].opened(size))).permute(2, 0, 1)

    names = rows[0].pictures if rows else {}
    return {name: torch.stack([pixels(row, name) for row in rows]) for name in names}


def choose_rows(keys: Sequence[str], degradation: Sequence[float], each: int) -> list[tuple[int, Why]]:
    """Rows with the most degradation, the least, and the first others, ``each`` of a kind; no input twice.

    Inputs come in random order, so the first ones are a random draw.
    """
    by_degradation = sorted(range(len(degradation)), key=lambda row: (-degradation[row], row))
    orders: tuple[tuple[Why, Iterator[int]], ...] = (
        ("worst", iter(by_degradation)),
        ("best", reversed(by_degradation)),
        ("random", iter(range(len(degradation)))),
    )
    taken: set[str] = set()
    chosen: list[tuple[int, Why]] = []
    share = max(1, min(each, len(set(keys)) // 3))
    for why, rows in orders:
        left = share
        for row in rows:
            if left and keys[row] not in taken:
                taken.add(keys[row])
                chosen.append((row, why))
                left -= 1
    return chosen


def _given(row: Row) -> list[tuple[ShownInput, Picture]]:
    """Pictures that a row holds, and how they are kept: once, however many rows hold them."""
    return [
        (ShownInput(name=name, file=f"given-{picture.digest}.webp"), picture) for name, picture in row.pictures.items()
    ]


def _kept(folder: Path) -> Gallery | None:
    try:
        return read_gallery(folder)
    except InputError as error:
        _LOG.warning("%s; it is made again", reason_of(error))
        return None


def _rounded(values: Tensor | None, row: int) -> float | None:
    return None if values is None else round(float(values[row]), 6)


def picture_image(picture: Tensor) -> Image:
    """A picture (3, H, W) uint8 as Pillow has it."""
    from PIL.Image import fromarray

    return fromarray(picture.permute(1, 2, 0).cpu().contiguous().numpy())


def save_webp(image: Image, path: Path) -> None:
    """Write a picture, whole or not at all."""
    part = path.with_suffix(".part")
    image.save(part, format="WEBP", lossless=max(image.size) <= _LOSSLESS_SIDE, quality=_QUALITY)
    part.replace(path)
