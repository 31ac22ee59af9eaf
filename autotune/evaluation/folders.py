"""Which files of a folder are its content."""

from __future__ import annotations

from pathlib import Path

# Thumbnails that network drives keep beside pictures.
_COMPANIONS = "@eaDir"


def files_in(folder: Path) -> list[Path]:
    """The files in a folder, at any depth and in order, without those that systems put beside others.

    Names that begin with a dot are such: ``._cat.png`` is what macOS knows of ``cat.png``, and no picture.
    """
    return sorted(
        file
        for file in folder.rglob("*")
        if not any(part.startswith(".") or part == _COMPANIONS for part in file.relative_to(folder).parts)
        and file.is_file()
    )
