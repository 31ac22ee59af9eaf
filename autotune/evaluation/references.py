"""What good pictures look like to the scorer: real pictures from a file or folder, or the full run's own."""

from __future__ import annotations

import logging
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import torch
from torch import Tensor

from autotune.core.cache_folder import cache_file
from autotune.core.errors import InputError
from autotune.evaluation.evaluator import Pictures
from autotune.evaluation.folders import files_in
from autotune.evaluation.inputs import Row
from autotune.quality import Reference
from autotune.quality.extractor import ImageFeatures
from autotune.quality.tensors import check_judged

_LOG = logging.getLogger(__name__)

Size = tuple[int, int]

OTHER_SEEDS = 4
"""Pictures of every input in a reference of the full run's own."""

_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
_LEAST = 8
_UNREADABLE_SHARE = 0.01
_NAMED = 5
_LOOKED_AT = 64
# Pictures held at once, as many as a scorer takes in a forward pass.
_BATCH = 64


def kept_reference(
    path: Path, fingerprint: str, network: ImageFeatures, network_fingerprint: str, size: Size
) -> Reference:
    """:func:`read_reference`, once for the same content: a folder's result is kept in the user's cache folder.

    Args:
        path: The file or folder.
        fingerprint: What is in it, as :func:`autotune.evaluation.content_fingerprint.content_fingerprint` says.
        network: Image features.
        network_fingerprint: Likewise.
        size: Height and width of the pictures.
    """
    if path.is_file():
        return Reference.load(path)
    cache = cache_file("references", fingerprint.partition("@")[2], network_fingerprint, size).with_suffix(
        ".safetensors"
    )
    if cache.is_file():
        try:
            return Reference.load(cache)
        except InputError as error:
            _LOG.warning("%s; it is made again", error)
    reference = read_reference(path, network, *size)
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        reference.save(cache)
    except OSError as error:
        _LOG.debug("nothing kept in %s: %s", cache, error)
    return reference


def read_reference(path: Path, network: ImageFeatures, height: int, width: int) -> Reference:
    """A reference from a ``.safetensors`` file, or of the pictures in a folder and its sub-folders.

    Pictures are resized to ``height`` x ``width`` first, so that they are as sharp as generated ones, and
    read a few at a time. Unreadable ones are skipped with a warning that names them, up to one in a hundred.

    Raises:
        InputError: the path is missing, or holds no statistics, too few pictures or too many unreadable ones, or a
            feature is not finite.
    """
    if path.is_file():
        return Reference.load(path)
    files = pictures_in(path)
    if len(files) < _LEAST:
        raise InputError(
            f"reference {path} has {len(files)} pictures; give a folder with {_LEAST} or more, better thousands"
        )
    unreadable: list[Path] = []
    batches = _batches(path, files, (width, height), unreadable)
    features = check_judged(torch.cat([network.image_features(batch) for batch in batches]), name_of(network))
    if unreadable:
        _LOG.warning("reference %s: %d of %d pictures skipped: %s", path, *_counted(path, unreadable, len(files)))
    if len(features) <= features.shape[1]:
        _LOG.warning(
            "reference %s has %d pictures for features of %d numbers: their covariance is uncertain; better thousands",
            path,
            *features.shape,
        )
    return Reference.of(features, shrink=True)


def shows_textures(path: Path, size: Size) -> bool:
    """Whether a folder's pictures are no smaller than ``size`` (height, width): enlarged ones are blurred.

    A few pictures are looked at; those that cannot be read say nothing here.
    """
    from PIL import Image

    files, broken = pictures_in(path), _broken()
    sizes = []
    for file in files[:: max(1, len(files) // _LOOKED_AT)]:
        try:
            with Image.open(file) as image:
                sizes.append((image.height, image.width))
        except broken:
            continue
    return bool(sizes) and all(height >= size[0] and width >= size[1] for height, width in sizes)


def pictures_in(path: Path) -> list[Path]:
    """Files in a folder and its sub-folders that hold pictures by their names; none of what is no folder."""
    if not path.is_dir():
        return []
    return [file for file in files_in(path) if file.suffix.lower() in _SUFFIXES]


def name_of(judge: object) -> str:
    """What a judge is called; one of the caller's own by its class."""
    name = getattr(judge, "name", None)
    return name if isinstance(name, str) else type(judge).__name__


def own_references(
    pictures: Callable[[Sequence[Row], Sequence[int]], Pictures],
    networks: Mapping[str, ImageFeatures],
    rows: Sequence[Row],
    first_seed: int,
    files: Mapping[str, Path],
) -> dict[str, Reference]:
    """References made of the full run's own pictures of ``rows``, with several seeds each that nothing else uses.

    Args:
        pictures: Makes the full run's pictures of inputs with seeds, batch by batch.
        networks: Image features, by judge.
        rows: The inputs, each pictured with every seed.
        first_seed: The lowest seed used.
        files: Keep the results between runs, by judge.
    """
    missing = {name: network for name, network in networks.items() if not files[name].is_file()}
    if missing:

        def features(rows: Sequence[Row], seeds: Sequence[int]) -> Iterator[Mapping[str, Tensor]]:
            with closing(pictures(rows, seeds)) as batches:
                for batch in batches:
                    yield {name: network.image_features(batch) for name, network in missing.items()}

        for name, reference in references_of_other_seeds(features, rows, first_seed).items():
            files[name].parent.mkdir(parents=True, exist_ok=True)
            reference.save(files[name])
    return {name: Reference.load(files[name]) for name in networks}


def references_of_other_seeds(
    features: Callable[[Sequence[Row], Sequence[int]], Iterable[Mapping[str, Tensor]]],
    rows: Sequence[Row],
    first_seed: int,
) -> dict[str, Reference]:
    """What :func:`own_references` makes, of features that somebody else keeps.

    Args:
        features: Gives features (n, D) of the full run's pictures of inputs with seeds, batch by batch, by judge.
        rows: The inputs, each pictured with every seed.
        first_seed: The lowest seed used.
    """
    count = len(rows)
    starts = [first_seed + part * count for part in range(OTHER_SEEDS)]
    batches = [batch for start in starts for batch in features(rows, range(start, start + count))]
    return {name: Reference.of(torch.cat([batch[name] for batch in batches]), shrink=True) for name in batches[0]}


def _batches(folder: Path, files: Sequence[Path], size: tuple[int, int], unreadable: list[Path]) -> Iterator[Tensor]:
    """The pictures (n, 3, H, W) uint8 of ``files``; those that cannot be read are added to ``unreadable`` instead."""
    allowed = math.floor(_UNREADABLE_SHARE * len(files))
    pictures: list[Tensor] = []
    for number, file in enumerate(files, 1):
        picture = _read(file, size)
        if picture is not None:
            pictures.append(picture)
        else:
            unreadable.append(file)
        if len(unreadable) > allowed:
            bad, seen, names = _counted(folder, unreadable, number)
            raise InputError(
                f"reference {folder}: {bad} of the first {seen} pictures cannot be read ({names}), which is more "
                f"than 1 % of all {len(files)}; remove or replace them"
            )
        if pictures and (len(pictures) == _BATCH or number == len(files)):
            yield torch.stack(pictures)
            pictures.clear()


def _counted(folder: Path, unreadable: Sequence[Path], of: int) -> tuple[int, int, str]:
    names = ", ".join(str(file.relative_to(folder)) for file in unreadable[:_NAMED])
    return len(unreadable), of, names + (", ..." if len(unreadable) > _NAMED else "")


def _read(file: Path, size: tuple[int, int]) -> Tensor | None:
    """A picture (3, H, W) uint8 of ``size`` (width, height), or None where the file holds none."""
    import numpy
    from PIL import Image

    try:
        with Image.open(file) as image:
            resized = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    except _broken():
        return None
    return torch.from_numpy(numpy.array(resized)).permute(2, 0, 1)


def _broken() -> tuple[type[Exception], ...]:
    """What reading a file that holds no picture raises: Pillow hands on what the formats' own parsers raise."""
    from PIL import Image

    return (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
