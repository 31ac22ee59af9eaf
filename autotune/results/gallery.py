"""Pictures of the last round for people: the prompts that the policy treats worst, best, and some drawn at random."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import ValidationError

from autotune.core.errors import InputError, reason_of
from autotune.core.records import Record, write_atomically
from autotune.policy import Policy

if TYPE_CHECKING:
    from torch import Tensor

    from autotune.evaluation.evaluator import Evaluator, Pictures
    from autotune.results.finalists import Finalists

_LOG = logging.getLogger(__name__)

FOLDER = "pictures"
FILE = "pictures.json"

EACH = 4
"""Prompts of each kind."""

# Smaller ones are kept as they are.
_LOSSLESS_SIDE = 256
_QUALITY = 90

Why = Literal["worst", "best", "random"]
Make = Callable[[Policy, Sequence[str], Sequence[int]], "Pictures"]


class ShownRun(Record):
    """One run. ``key`` is its policy's."""

    name: str
    key: str
    steps: int
    relative_cost: float


class ShownPicture(Record):
    """One run's picture: a file beside the record, its alignment with the prompt, its change from the full run's."""

    file: str
    alignment: float
    change: float


class ShownPrompt(Record):
    """A held-out prompt with one picture of each run. ``harm`` is what it was chosen by: higher is worse."""

    prompt: str
    seed: int
    why: Why
    harm: float
    pictures: tuple[ShownPicture, ...]


class Gallery(Record):
    """``prompts`` were chosen among ``among`` pictures; ``by`` says what their harm is: alignment or change."""

    runs: tuple[ShownRun, ...]
    by: Literal["alignment", "change"]
    among: int
    prompts: tuple[ShownPrompt, ...]


def read_gallery(folder: Path) -> Gallery | None:
    """The gallery in a run's folder; None where the search has not come so far.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / FOLDER / FILE
    try:
        return Gallery.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); delete it and repeat the search") from error


def keep_gallery(folder: Path, finalists: Finalists, evaluator: Evaluator, seeds: Sequence[int], make: Make) -> None:
    """Choose prompts by what the last headline run does to them, make their pictures again and keep them.

    All runs' pictures of the last round would fill a disk; these few are made again, which gives the same ones.
    Nothing is made where an earlier call kept the same.

    Args:
        folder: the run's.
        finalists: whose headline runs are shown.
        evaluator: of the last round.
        seeds: one per prompt of the evaluator.
        make: makes pictures.
    """
    from autotune.quality.fidelity import feature_distances

    headline_runs = finalists.headline_runs
    outcomes = [evaluator.outcome(run.policy).evaluation for run in headline_runs]
    full = evaluator.full.evaluation
    changes = [feature_distances(outcome.features, full.features) for outcome in outcomes]
    by_alignment = evaluator.objective.weights.clip > 0
    degradation = (full.alignment - outcomes[-1].alignment) if by_alignment else changes[-1]
    rows = choose_rows(evaluator.prompts, degradation.tolist(), EACH)
    files = [[f"{run.policy.key}-{row}.webp" for row, _ in rows] for run in headline_runs]
    found = Gallery(
        runs=tuple(
            ShownRun(name=run.name, key=run.policy.key, steps=run.policy.steps, relative_cost=run.cost.relative)
            for run in headline_runs
        ),
        by="alignment" if by_alignment else "change",
        among=len(evaluator.prompts),
        prompts=tuple(
            ShownPrompt(
                prompt=evaluator.prompts[row],
                seed=seeds[row],
                why=why,
                harm=round(float(degradation[row]), 6),
                pictures=tuple(
                    ShownPicture(
                        file=files[run][place],
                        alignment=round(float(outcomes[run].alignment[row]), 6),
                        change=round(float(changes[run][row]), 6),
                    )
                    for run in range(len(headline_runs))
                ),
            )
            for place, (row, why) in enumerate(rows)
        ),
    )
    wanted = [folder / FOLDER / name for names in files for name in names]
    if found == _kept(folder) and all(path.is_file() for path in wanted):
        return
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    prompts, chosen = [evaluator.prompts[row] for row, _ in rows], [seeds[row] for row, _ in rows]
    for run, names in zip(headline_runs, files, strict=True):
        with closing(make(run.policy, prompts, chosen)) as batches:
            for name, picture in zip(names, itertools.chain.from_iterable(batches), strict=True):
                _save(picture, folder / FOLDER / name)
    # Last, so that it never names a picture that is not there.
    write_atomically(folder / FOLDER / FILE, found.model_dump_json(indent=1) + "\n")


def choose_rows(prompts: Sequence[str], degradation: Sequence[float], each: int) -> list[tuple[int, Why]]:
    """Rows with the most degradation, the least, and the first others, ``each`` of a kind; no prompt twice.

    Prompts come in random order, so the first ones are a random draw.
    """
    by_degradation = sorted(range(len(degradation)), key=lambda row: (-degradation[row], row))
    orders: tuple[tuple[Why, Iterator[int]], ...] = (
        ("worst", iter(by_degradation)),
        ("best", reversed(by_degradation)),
        ("random", iter(range(len(degradation)))),
    )
    taken: set[str] = set()
    chosen: list[tuple[int, Why]] = []
    share = max(1, min(each, len(set(prompts)) // 3))
    for why, rows in orders:
        left = share
        for row in rows:
            if left and prompts[row] not in taken:
                taken.add(prompts[row])
                chosen.append((row, why))
                left -= 1
    return chosen


def _kept(folder: Path) -> Gallery | None:
    try:
        return read_gallery(folder)
    except InputError as error:
        _LOG.warning("%s; it is made anew", reason_of(error))
        return None


def _save(picture: Tensor, path: Path) -> None:
    """Write a picture (3, H, W) uint8 as WebP."""
    from PIL import Image

    image = Image.fromarray(picture.permute(1, 2, 0).cpu().contiguous().numpy())
    part = path.with_suffix(".part")
    image.save(part, format="WEBP", lossless=max(image.size) <= _LOSSLESS_SIDE, quality=_QUALITY)
    part.replace(path)
