"""The plan picture in a terminal: one character a call, with a legend, in ASCII where the output knows no more."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from autotune.plan import Action
from autotune.report.plan_picture import WORDS, PlanPicture, Span, shortened

# Shapes differ as well as colours do.
_SIGNS = {
    Action.COMPUTE: ("█", "#", "blue"),
    Action.REUSE: ("─", "-", "cyan"),
    Action.FORECAST: ("/", "/", "yellow"),
    Action.RESIDUAL: ("+", "+", "green"),
    Action.NOT_NEEDED: ("·", ".", "bright_black"),
}
_GUIDANCE = {"on": ("▀", "#"), "reused": ("─", "-"), "off": ("·", ".")}
_LEVELS = ("▁▂▃▄▅▆▇█", "12345678")
_LONGEST_LABEL = 46
_SHARE = 8
_GAP = 2


class PlanText:
    """A rich renderable. Calls that do not fit into the width go on in a further block."""

    def __init__(self, picture: PlanPicture) -> None:
        self._picture = picture

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Steps across, units down; resolution and guidance above."""
        picture, plain = self._picture, options.ascii_only
        most = min(_LONGEST_LABEL, max(12, options.max_width // 2))
        labels = [shortened(row, " units", most, "..." if plain else "…") for row in picture.rows]
        width = max(map(len, (*labels, "resolution", picture.guidance_name)))
        room = max(8, options.max_width - width - _SHARE - 2 * _GAP)
        for first in range(0, len(picture.columns), room):
            here = slice(first, first + room)
            yield Text(self._ruler(here, width))
            yield self._line("resolution", width, [(_level(picture, column, plain), "") for column in self._in(here)])
            if picture.guidance:
                signs = [_GUIDANCE[picture.columns[column].guidance][plain] for column in self._in(here)]
                yield self._line(picture.guidance_name, width, [(sign, "") for sign in signs])
            for label, row in zip(labels, picture.rows, strict=True):
                cells = [(_SIGNS[action][plain], _SIGNS[action][2]) for action in row.actions[here]]
                yield self._line(label, width, cells, row.share)
            yield Text()
        yield Text(f"latents: {_said(picture.resolutions)}")
        if picture.guidance:
            yield Text(f"{picture.guidance_name}: {_said(picture.guided)}")
        legend = Text()
        for action in picture.used:
            legend.append(_SIGNS[action][plain], _SIGNS[action][2])
            legend.append(f" {WORDS[action]}   ")
        yield legend
        if any(row.share is not None for row in picture.rows):
            yield Text("At the right: share of a full call's FLOPs.")

    def _in(self, here: slice) -> range:
        return range(len(self._picture.columns))[here]

    def _ruler(self, here: slice, width: int) -> str:
        """Every fifth step, counted from 1."""
        line = [" "] * (len(self._in(here)) + 4)
        before = -1
        for place, column in enumerate(self._in(here)):
            step = self._picture.columns[column].step
            if step != before and (step == 0 or (step + 1) % 5 == 0):
                for offset, digit in enumerate(str(step + 1)):
                    line[place + offset] = digit
            before = step
        return f"{'step':<{width}}{' ' * _GAP}{''.join(line).rstrip()}"

    def _line(self, label: str, width: int, cells: Sequence[tuple[str, str]], share: float | None = None) -> Text:
        line = Text(set_cell_size(label, width) + " " * _GAP, no_wrap=True)
        for sign, style in cells:
            line.append(sign, style or None)
        if share is not None:
            line.append(f"{share:>{_SHARE}.1%}")
        return line


def _level(picture: PlanPicture, column: int, plain: bool) -> str:
    """A bar as high as the latents' side is long."""
    tallest = max(each.height for each in picture.columns)
    return _LEVELS[plain][max(1, round(8 * picture.columns[column].height / tallest)) - 1]


def _said(spans: Sequence[Span]) -> str:
    """``8 x 8 in calls 1 to 7, 16 x 16 in calls 8 to 13``."""
    if len(spans) == 1:
        return f"{spans[0].text} throughout"
    return ", ".join(
        f"{span.text} in call {span.first + 1}"
        if span.first == span.last
        else f"{span.text} in calls {span.first + 1} to {span.last + 1}"
        for span in spans
    )
