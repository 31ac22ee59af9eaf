"""Any number of runs side by side: a column each, as many tables as it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from autotune.policy import ContenderQuality, Interval

# Columns of text that the headings take, and one run with the space before it.
_HEADING, _GAP, _RUN = 9, 3, 14

_LEGEND = (
    "Below each score its 95 % interval. Loss, distance (to the reference) and change (of features, from the full"
    " run's pictures): lower is better. {error}{alignment}PSNR and SSIM (to the full run's pictures):"
    " higher is better."
)
_ERROR_LEGEND = "Error (0: the exact run with the same guidance, 1: coarse pictures): lower is better. "
_ALIGNMENT_LEGEND = "Alignment (with the prompts), "
_LPIPS_LEGEND = " LPIPS (perceptual distance to the full run's pictures): lower is better."


@dataclass(frozen=True)
class Side:
    """One run. Its share of FLOPs is of the full run; PSNR (dB), SSIM and LPIPS are to the full run's pictures.

    ``identical`` is the share of its pictures that are the full run's, value by value.
    """

    name: str
    steps: int
    flops_share: float
    quality: ContenderQuality
    psnr: Interval
    ssim: Interval
    identical: float
    lpips: Interval | None = None


def comparison_tables(
    sides: Sequence[Side], *, prompts: int, images: int, width: int, noun: str = "prompts"
) -> Iterator[Table | Text]:
    """Steps, cost and scores of each run, every score with its 95 % interval, and a legend.

    Where the runs do not fit into ``width`` columns of text, further tables begin with the first run again.

    Args:
        sides: The full run, then the others.
        prompts: Different inputs.
        images: Pictures made of each run.
        width: Columns of text.
        noun: What the inputs are.
    """
    full, *others = sides
    perceptual, aligned = full.lpips is not None, full.quality.alignment is not None
    erring = full.quality.error is not None
    rows = _ROWS | ({"LPIPS": _to_full_run("lpips", 3)} if perceptual else {})
    fitting = max(1, (width - _HEADING) // (_GAP + _RUN) - 1)
    parts = [others[start : start + fitting] for start in range(0, len(others), fitting)]
    for number, part in enumerate(parts, 1):
        table = Table(
            title=f"{images} pictures of {prompts} {noun}" + (f" ({number} of {len(parts)})" if parts[1:] else ""),
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("")
        for side in (full, *part):
            table.add_column(escape(side.name), justify="right", overflow="fold", max_width=_RUN)
        for heading, cell in rows.items():
            if (heading == "alignment" and not aligned) or (heading == "error" and not erring):
                continue
            table.add_row(heading, *(cell(side) for side in (full, *part)))
        yield table
    legend = _LEGEND.format(alignment=_ALIGNMENT_LEGEND if aligned else "", error=_ERROR_LEGEND if erring else "")
    yield Text(legend + (_LPIPS_LEGEND if perceptual else ""))


def _score(name: str) -> Callable[[Side], str]:
    return lambda side: _estimate(getattr(side.quality, name), 3)


def _to_full_run(name: str, digits: int) -> Callable[[Side], str]:
    return lambda side: "identical" if side.identical == 1 else _estimate(getattr(side, name), digits)


def _estimate(interval: Interval, digits: int) -> str:
    value, low, high = (f"{number:.{digits}f}" for number in (interval.value, interval.low, interval.high))
    return f"{value}\n{low}..{high}"


_ROWS: dict[str, Callable[[Side], str]] = {
    "steps": lambda side: str(side.steps),
    "FLOPs": lambda side: f"{side.flops_share:.1%}",
    "loss": _score("loss"),
    "distance": _score("distance"),
    "alignment": _score("alignment"),
    "error": _score("error"),
    "change": _score("fidelity"),
    "PSNR, dB": _to_full_run("psnr", 2),
    "SSIM": _to_full_run("ssim", 3),
}
