"""``postdiff generate``: pictures from prompts, under a policy or without one."""

from __future__ import annotations

from pathlib import Path

from autotune.cli.models import DType, ModelSource
from autotune.policy import Policy


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
    pipe = source.load(device, dtype)

    from PIL import Image

    from autotune.evaluation.pictures import generate
    from autotune.runtime import apply_policy, full_policy
    from autotune.runtime.models import recommended

    apply_policy(pipe, policy or full_policy(pipe))
    if guidance_scale is None:
        guidance_scale = recommended(pipe).get("guidance_scale")
    seeds = range(seed, seed + len(prompts))
    pictures = generate(pipe, prompts, seeds, guidance_scale=guidance_scale)
    for picture, file in zip(pictures, files, strict=True):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(file)
