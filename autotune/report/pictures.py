"""Pictures inside a page: data URIs, no larger than a screen needs."""

from __future__ import annotations

import base64
import functools
import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from autotune.core.errors import InputError, reason_of
from autotune.report.run import Run
from autotune.results.gallery import FOLDER, ShownPrompt

MOST_SIDE = 640
"""Pixels; larger pictures are made smaller for the page."""

_QUALITY = 85
# Of WebP, up to 6: more of it takes twice as long for files three percent smaller.
_EFFORT = 2
_GRIDS = "grids"

_HEADINGS = {
    "worst": (
        "Where the policy does worst",
        "the largest loss of {by} against the full run, or the smallest gain, of all {among} pictures",
    ),
    "best": ("Where it does best", "the largest gain of {by}, or the smallest loss"),
    "random": ("Drawn at random", "the first of the others"),
}
_NAMES = {2: "policy found"}
_BY = {"alignment": "alignment with the prompt", "change": "likeness to the full run’s picture"}


@dataclass(frozen=True)
class Shown:
    """A picture as HTML takes it; ``note`` is what it scored."""

    run: str
    uri: str
    width: int
    height: int
    note: str


@dataclass(frozen=True)
class Prompt:
    """What was asked for, by its name for people, with the pictures it holds and a picture of each run."""

    text: str
    note: str
    pictures: tuple[Shown, ...]


@dataclass(frozen=True)
class Section:
    """Prompts that were chosen alike."""

    heading: str
    note: str
    prompts: tuple[Prompt, ...]


def held_out(run: Run) -> tuple[Section, ...]:
    """Pictures of the last round: the inputs that the policy treats worst, best, and some drawn at random.

    Raises:
        InputError: a picture is missing or damaged.
    """
    gallery = run.gallery
    if gallery is None:
        return ()
    # Pillow works outside of the interpreter's lock.
    with ThreadPoolExecutor() as threads:
        made = list(threads.map(functools.partial(_prompt, run), gallery.prompts))
    sections = []
    for why, (heading, note) in _HEADINGS.items():
        prompts = tuple(prompt for prompt, each in zip(made, gallery.prompts, strict=True) if each.why == why)
        if prompts:
            said = note.format(by=_BY[gallery.by], among=gallery.among)
            sections.append(Section(heading, said, prompts))
    return tuple(sections)


def so_far(run: Run) -> tuple[Section, ...]:
    """While the search runs: the full run's and the leader's pictures of the first tuning inputs, as two grids."""
    folder = run.folder / _GRIDS
    grids = [("full run", folder / "full_run.png", "")]
    if run.best is not None:
        grids.append(("leader", folder / f"{run.best.key}.png", run.best.id))
    shown = tuple(shown_file(name, path, note) for name, path, note in grids if path.is_file())
    if not shown:
        return ()
    prompt = Prompt(f"The first tuning {run.noun}", "", shown)
    of_both = "seeds" if run.noun == "seeds" else f"{run.noun} and seeds"
    return (Section("So far", f"the same {of_both} in both grids", (prompt,)),)


def _prompt(run: Run, shown: ShownPrompt) -> Prompt:
    assert run.gallery is not None
    given = tuple(
        shown_file(each.name.replace("_", " "), run.folder / FOLDER / each.file, "what the pipeline was given")
        for each in shown.given
    )
    made = tuple(
        shown_file(
            name=f"{_NAMES.get(place, ran.name)}, {ran.steps} steps",
            path=run.folder / FOLDER / picture.file,
            note=f"changed by {picture.change:.3f}"
            if picture.alignment is None
            else f"alignment {picture.alignment:.3f}",
        )
        for place, (ran, picture) in enumerate(zip(run.gallery.runs, shown.pictures, strict=True))
    )
    note = (
        f"alignment {-shown.degradation:+.3f}"
        if run.gallery.by == "alignment"
        else f"changed by {shown.degradation:.3f}"
    )
    return Prompt(shown.prompt, f"{note} against the full run", (*given, *made))


def shown_file(name: str, path: Path, note: str) -> Shown:
    """A picture's file for the page.

    Raises:
        InputError: it is missing or damaged.
    """
    data, width, height = _fitting(path)
    kind = "png" if data.startswith(b"\x89PNG") else "webp"
    return Shown(name, f"data:image/{kind};base64,{base64.b64encode(data).decode()}", width, height, note)


def _fitting(path: Path) -> tuple[bytes, int, int]:
    """The file as it is, or a smaller picture where it is large; with width and height."""
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as picture:
            if max(picture.size) <= MOST_SIDE:
                return data, *picture.size
            small = picture.convert("RGB")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason_of(error)}); delete it and repeat the search") from error
    small.thumbnail((MOST_SIDE, MOST_SIDE))
    target = io.BytesIO()
    small.save(target, format="WEBP", quality=_QUALITY, method=_EFFORT)
    return target.getvalue(), *small.size
