"""Where the rectangles of a plan picture go; the template draws them."""

from __future__ import annotations

from dataclasses import dataclass

from autotune.report.plan_picture import WORDS, PlanPicture, Span, runs_of, shortened

_WIDEST_LABEL = 280
_SHARE = 56
_GAP = 3
_HEAD_ROW = 24
_RULER = 20
_LEAST_ROW, _MOST_ROW, _ALL_ROWS = 20, 64, 300
_WIDEST, _NARROWEST, _ALL_COLUMNS = 34, 11, 700
# Of a letter in the font that the template takes.
_LETTER = 6.6


@dataclass(frozen=True)
class Box:
    """A rectangle; ``kind`` is its CSS class, ``text`` what stands in it, ``title`` what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    text: str
    title: str


@dataclass(frozen=True)
class Label:
    """Text beside or above the boxes."""

    x: float
    y: float
    text: str
    title: str = ""


@dataclass(frozen=True)
class Drawing:
    """An SVG of ``width`` x ``height``; ``summary`` says in words what it shows."""

    width: float
    height: float
    boxes: tuple[Box, ...]
    labels: tuple[Label, ...]
    shares: tuple[Label, ...]
    ticks: tuple[Label, ...]
    handoffs: tuple[float, ...]
    top: float
    legend: tuple[tuple[str, str], ...]
    summary: str


def lay_out(picture: PlanPicture) -> Drawing:
    """Calls across; resolution, guidance and units down, units as high as their share of the FLOPs allows."""
    count = len(picture.columns)
    wide = min(_WIDEST, max(_NARROWEST, _ALL_COLUMNS / count))
    boxes: list[Box] = []
    labels: list[Label] = []
    shares: list[Label] = []
    y = float(_RULER)
    names = [shortened(row, "", int((_WIDEST_LABEL - 14) / _LETTER), "…") for row in picture.rows]
    left = min(_WIDEST_LABEL, _LETTER * max(map(len, [*names, picture.guidance_name])) + 16)

    def x(column: int) -> float:
        return left + column * wide

    def header(name: str, spans: tuple[Span, ...], kind: str) -> None:
        nonlocal y
        labels.append(Label(left - 10, y + _HEAD_ROW / 2, name))
        for span in spans:
            width = x(span.last + 1) - x(span.first)
            title = f"{name} {span.text}, {_calls(span.first, span.last)}"
            boxes.append(
                Box(x(span.first), y, width, _HEAD_ROW, f"{kind} {_class(span, spans)}", _fit(span.text, width), title)
            )
        y += _HEAD_ROW + _GAP

    header("latents", picture.resolutions, "resolution")
    if picture.guidance:
        header(picture.guidance_name, picture.guided, "guidance")
    top = y = y + 5
    for row, name in zip(picture.rows, names, strict=True):
        height = max(_LEAST_ROW, min(_MOST_ROW, _ALL_ROWS * (row.share or 0)))
        labels.append(Label(left - 10, y + height / 2, name, f"{row.label}: {row.units} units"))
        if row.share is not None:
            shares.append(Label(x(count) + _SHARE - 4, y + height / 2, f"{row.share:.1%}"))
        for action, first, last in runs_of(row.actions):
            title = f"{row.label}: {WORDS[action]}, {_calls(first, last)}"
            for column in range(first, last + 1):
                boxes.append(Box(x(column) + 0.5, y, wide - 1, height, action.name.lower(), "", title))
        y += height + _GAP
    every = 1 if wide >= 24 else 5
    ticks = []
    before = -1
    for column, call in enumerate(picture.columns):
        if call.step != before and (call.step == 0 or (call.step + 1) % every == 0):
            ticks.append(Label(x(column) + wide / 2, _RULER - 7, str(call.step + 1)))
        before = call.step
    return Drawing(
        width=x(count) + (_SHARE if shares else 8),
        height=y + 4,
        boxes=tuple(boxes),
        labels=tuple(labels),
        shares=tuple(shares),
        ticks=tuple(ticks),
        handoffs=tuple(x(column + 1) for column, call in enumerate(picture.columns) if call.handoff),
        top=top,
        legend=tuple((action.name.lower(), WORDS[action]) for action in picture.used),
        summary=summary(picture),
    )


def summary(picture: PlanPicture) -> str:
    """The picture for those who cannot see it."""
    cells = len(picture.columns) * len(picture.rows)
    counts = {action: sum(row.actions.count(action) for row in picture.rows) for action in picture.used}
    parts = ", ".join(f"{WORDS[action]} {count / cells:.0%}" for action, count in counts.items())
    sizes = ", ".join(f"{span.text} in {_calls(span.first, span.last)}" for span in picture.resolutions)
    return f"Plan of {len(picture.columns)} calls and {len(picture.rows)} groups of units: {parts}. Latents {sizes}."


def _calls(first: int, last: int) -> str:
    return f"call {first + 1}" if first == last else f"calls {first + 1} to {last + 1}"


def _class(span: Span, spans: tuple[Span, ...]) -> str:
    if span.text in ("on", "off"):
        return span.text
    if span.text == "reused":
        return "again"
    # Sizes grow: the last is full size.
    sizes = list(dict.fromkeys(each.text for each in spans))
    return "full" if span.text == sizes[-1] else f"low{min(sizes.index(span.text), 2)}"


def _fit(text: str, width: float) -> str:
    """``text`` where there is room for it."""
    return text if len(text) * _LETTER + 6 <= width else ""
