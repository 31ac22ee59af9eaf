"""``tiers.html``: the tiers of a run in a table, and the same held-out inputs by each, a row of pictures a tier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotune.core.errors import InputError
from autotune.core.records import write_atomically
from autotune.policy import PolicySet, read_set
from autotune.report.page import made, template
from autotune.report.pictures import Shown, shown_file
from autotune.report.tiers import TierLine, interval_text, share_text, tier_lines
from autotune.results.tiers import FILE as PICTURES
from autotune.results.tiers import FOLDER, POLICIES, TierPictures, read_tier_pictures

FILE = "tiers.html"


@dataclass(frozen=True)
class TierView:
    """A tier as the page has it: its line, its pictures and the page of its search."""

    line: TierLine
    pictures: tuple[Shown, ...]
    report: str | None


def has_tiers(folder: Path) -> bool:
    """Whether a folder is that of a run with tiers."""
    return (folder / POLICIES).is_file() and (folder / FOLDER / PICTURES).is_file()


def write_tiers_page(folder: Path, path: Path) -> None:
    """Write the page of a run's tiers, whole or not at all.

    Args:
        folder: the run's.
        path: the file.

    Raises:
        InputError: the run has no tiers, or a file of them is damaged.
    """
    kept = read_tier_pictures(folder)
    if kept is None:
        raise InputError(f"{folder}: holds no tiers; give the folder of a search with --tier")
    write_atomically(path, render_tiers(folder, read_set(folder / POLICIES), kept))


def render_tiers(folder: Path, policies: PolicySet, kept: TierPictures) -> str:
    """The page as HTML."""
    rows = {row.name: row for row in kept.rows}
    views = [
        TierView(
            line,
            tuple(
                shown_file(text, folder / FOLDER / file, "")
                for text, file in zip(kept.inputs, rows[line.name].files, strict=True)
            )
            if line.name in rows
            else (),
            rows[line.name].report if line.name in rows else None,
        )
        for line in tier_lines(policies)
    ]
    text = template("tiers_page.html").render(
        {"model": kept.model, "noun": kept.noun, "views": views, "share": share_text, "interval": interval_text}
        | made()
    )
    return str(text)
