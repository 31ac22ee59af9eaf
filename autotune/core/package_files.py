"""Files of this package by names that mean the same on every machine: ``postdiff:models/emoji-clip``."""

from __future__ import annotations

from pathlib import Path

_PREFIX = "postdiff:"
_PACKAGE = Path(__file__).resolve().parents[1]


def portable(path: Path) -> str:
    """A path as another machine may read it: of a file of the package its name, of all others the whole path.

    Example:
        >>> portable(_PACKAGE / "models")
        'postdiff:models'
    """
    path = path.resolve()
    return f"{_PREFIX}{path.relative_to(_PACKAGE).as_posix()}" if path.is_relative_to(_PACKAGE) else str(path)


def package_file(name: str) -> Path | None:
    """The file of the package that ``name`` names; None where it names something else.

    Raises:
        ValueError: the file would lie outside of the package.
    """
    return inside(_PACKAGE, name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else None


def inside(folder: Path, name: str) -> Path:
    """A file by its path from ``folder``.

    Raises:
        ValueError: it would lie outside of it.
    """
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise ValueError(f"{name!r} lies outside of {folder}")
    return path
