"""``postdiff generate``: pictures from prompts, under a policy or without one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from autotune.cli.models import DType, ModelSource
from autotune.core.faults import during
from autotune.policy import Policy

if TYPE_CHECKING:
    from PIL.Image import Image


def generate_pictures(
    source: ModelSource,
    policy: Policy | None,
    prompts: list[str],
    files: list[Path],
    *,
    seed: int,
    guidance_scale: float | None,
    device: str,
    dtype: DType,
) -> None:
    """Make one picture per prompt, the i-th from seed ``seed + i``, and write it to its file."""
    with during("while loading the model"):
        pipe = source.load(device, dtype)

    from PIL.Image import fromarray

    from autotune.evaluation.pictures import generate
    from autotune.runtime import apply_policy, full_policy
    from autotune.runtime.models import recommended

    apply_policy(pipe, policy or full_policy(pipe))
    if guidance_scale is None:
        guidance_scale = recommended(pipe).get("guidance_scale")
    seeds = range(seed, seed + len(prompts))
    with during("while making pictures"):
        pictures = generate(pipe, prompts, seeds, guidance_scale=guidance_scale)
    for picture, file in zip(pictures, files, strict=True):
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
