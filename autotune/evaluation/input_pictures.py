"""Pictures that a pipeline is given: read and checked in full before a search begins, known by their content."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autotune.core.errors import InputError, reason_of

if TYPE_CHECKING:
    from PIL.Image import Image

MASK = "mask_image"
"""The argument whose picture says where to paint; all others are seen in colour."""

# Modes of more than eight bits a channel, with the value that stands for white. Pillow's own conversion clips them.
_WHITE = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I;16N": 65535, "I": 65535}
_DIGITS = 16


@dataclass(frozen=True)
class Picture:
    """A picture by its content; where it lies does not tell it from others.

    Attributes:
        digest: Of the file's bytes or, of a picture in memory, of its pixels.
        size: Width and height in pixels, upright.
        path: The file; None of a picture in memory.
        image: The picture in memory; None of a file, which is read again whenever it is needed.
    """

    digest: str
    size: tuple[int, int]
    path: Path | None = field(default=None, compare=False)
    image: Image | None = field(default=None, compare=False, repr=False)

    @property
    def name(self) -> str:
        """What people call it."""
        return "a picture in memory" if self.path is None else self.path.name

    def opened(self, size: tuple[int, int] | None = None, *, gray: bool = False) -> Image:
        """The picture in RGB, or in shades of gray, resized as a whole to ``size`` (width, height) if given.

        Raises:
            InputError: the file is gone or holds another picture by now.
        """
        from PIL.Image import Resampling

        image = self.image if self.path is None else _decoded(self._bytes(), str(self.path))
        assert image is not None, "a picture is in a file or in memory"
        converted = image.convert("L") if gray else image
        return converted if size in (None, converted.size) else converted.resize(size, Resampling.LANCZOS)

    def _bytes(self) -> bytes:
        assert self.path is not None
        data = _read(self.path)
        if _digest(data) != self.digest:
            raise InputError(f"{self.path}: holds another picture than when the search began; put the first one back")
        return data


def read_picture(path: Path) -> Picture:
    """A picture in a file, of any mode and size, decoded to the end.

    Raises:
        InputError: there is no such file, or it holds no whole picture.
    """
    data = _read(path)
    return Picture(_digest(data), _decoded(data, str(path)).size, path=path.resolve())


def picture_in_memory(image: Any) -> Picture:
    """A picture that Pillow holds.

    Raises:
        InputError: it cannot be shown in RGB.
    """
    upright = _upright(image, "a picture in memory")
    return Picture(_digest(repr(upright.size).encode() + upright.tobytes()), upright.size, image=upright)


def is_image(value: object) -> bool:
    """Whether a value is one of Pillow's images."""
    from PIL.Image import Image

    return isinstance(value, Image)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a picture's file") from None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def _decoded(data: bytes, name: str) -> Image:
    import PIL
    from PIL import Image

    # Pillow's decoders hand on what the formats' own parsers raise.
    broken = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _upright(image, name)
    except InputError:
        raise
    except broken as error:
        reason = "no whole picture" if isinstance(error, PIL.UnidentifiedImageError) else reason_of(error)
        raise InputError(f"{name}: cannot be read as a picture ({reason}); save it again, as a PNG") from None


def _upright(image: Image, name: str) -> Image:
    """In RGB, turned as its camera was held."""
    from PIL import Image, ImageOps

    turned = ImageOps.exif_transpose(image)
    white = _WHITE.get(turned.mode)
    if white is not None:
        import numpy

        values = numpy.asarray(turned).astype(numpy.float64) * (255 / white)
        turned = Image.fromarray(values.round().clip(0, 255).astype(numpy.uint8))
    elif turned.mode == "F":
        raise InputError(f"{name}: its values are floating-point numbers of no known range; save it with 8 or 16 bits")
    try:
        return turned.convert("RGB")
    except ValueError:
        raise InputError(f"{name}: its mode {turned.mode} cannot be shown in RGB; save it as RGB") from None
