"""``postdiff generate``: pictures of prompts or other inputs, under a policy or without one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.cli.models import DType, ModelSource
from autotune.core.faults import during
from autotune.policy import Policy

if TYPE_CHECKING:
    from PIL.Image import Image

    from autotune.evaluation.inputs import Row

# Pictures of any size are given to the pipeline one by one.
_BATCH = 16


def generate_pictures(
    source: ModelSource,
    policy: Policy | None,
    rows: Sequence[Row],
    files: list[Path],
    *,
    seed: int,
    height: int | None,
    width: int | None,
    guidance_scale: float | None,
    device: str,
    dtype: DType,
) -> None:
    """Make one picture of each row, the i-th from seed ``seed + i``, and write it to its file.

    Without a size they have the model's own, or that of the pictures that they are made from.

    Raises:
        InputError: the pipeline does not take the rows.
    """
    with during("while loading the model"):
        pipe = source.load(device, dtype)

    from PIL.Image import fromarray

    from autotune.evaluation.accepted_inputs import accepted
    from autotune.evaluation.generation import picture_maker
    from autotune.evaluation.pictures import picture_batches
    from autotune.runtime import applied, full_policy

    taken = accepted(pipe, rows)
    maker = picture_maker(pipe, height=height, width=width, guidance_scale=guidance_scale, inputs=taken)
    full = policy or full_policy(pipe)
    maker.check(full)
    # Given pictures are made from as they are.
    as_given = any(row.pictures for row in rows) and height is None and width is None
    with applied(pipe, full), during("while making pictures"):
        batches = picture_batches(
            pipe,
            taken.rows or rows,
            range(seed, seed + len(rows)),
            height=None if as_given else maker.height,
            width=None if as_given else maker.width,
            guidance_scale=maker.guidance_scale,
            batch_size=1 if as_given else _BATCH,
            shared=maker.call,
        )
        for picture, file in zip(chain.from_iterable(batches), files, strict=True):
            with during(f"while writing {file}"):
                _save(fromarray(picture.permute(1, 2, 0).numpy()), file)


def _save(image: Image, file: Path) -> None:
    """Write a picture, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".part-{file.name}")
    try:
        image.save(part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
