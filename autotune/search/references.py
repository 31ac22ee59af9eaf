"""What good pictures look like to the scorer: real pictures from a file or folder, or the full run's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from autotune.errors import InputError
from autotune.quality import Gaussian, fit
from autotune.search.bench import Features

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_OTHER_SEEDS = 4


def read_reference(path: Path, scorer: Features, height: int, width: int) -> Gaussian:
    """Statistics from a ``.safetensors`` file, or of the pictures in a folder (at any depth).

    Pictures are resized to ``height`` x ``width`` first, so that they are as sharp as generated ones.

    Raises:
        InputError: the path is missing, or holds no statistics and fewer than two readable pictures.
    """
    if path.is_file():
        return Gaussian.load(path)
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _SUFFIXES) if path.is_dir() else []
    if len(files) < 2:
        raise InputError(
            f"reference {path} has {len(files)} pictures; give a folder with two or more, better thousands"
        )
    return fit(torch.cat([scorer.image_features(_read(file, height, width)) for file in files]))


def own_reference(
    pictures: Callable[[Sequence[str], Sequence[int]], Tensor],
    scorer: Features,
    prompts: Sequence[str],
    first_seed: int,
    cache: Path,
) -> Gaussian:
    """Statistics of the full run's own pictures on ``prompts``, with several seeds each that nothing else uses.

    Args:
        pictures: Makes the full run's pictures of prompts with seeds.
        scorer: Image features.
        prompts: The prompts, each pictured with every seed.
        first_seed: The lowest seed used.
        cache: File that keeps the result between runs.
    """
    if cache.is_file():
        return Gaussian.load(cache)
    count = len(prompts)
    features = [
        scorer.image_features(pictures(prompts, range(first_seed + part * count, first_seed + (part + 1) * count)))
        for part in range(_OTHER_SEEDS)
    ]
    reference = fit(torch.cat(features))
    cache.parent.mkdir(parents=True, exist_ok=True)
    reference.save(cache)
    return reference


def _read(file: Path, height: int, width: int) -> Tensor:
    import numpy
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            resized = image.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"reference picture {file} cannot be read ({error}); remove it from the folder") from None
    return torch.from_numpy(numpy.array(resized)).permute(2, 0, 1)[None]
