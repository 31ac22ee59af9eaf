"""The Markdown notes that the dashboard shows beside a trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import optuna

from autotune.policy import Policy
from autotune.policy.words import in_words
from autotune.study.optuna_internals import id_of

if TYPE_CHECKING:
    from autotune.cost import Cost

OVER_BUDGET = "no step count of these knobs is within the budget"
"""Why a trial failed of which nothing was run."""

# Characters that the dashboard keeps in one attribute.
_PART = 2045


def trial_note(
    policy: Policy,
    cost: Cost,
    results: Mapping[str, Any],
    pictures: int,
    recipe: str | None,
    *,
    pruned: bool = False,
    feasible: bool = True,
) -> str:
    """Markdown for one trial; ``results`` holds what a score of so many pictures consists of, and its interval."""
    alignment = results["alignment"]
    lines = [f"**{policy.id}**" + (f" ({recipe})" if recipe else ""), "", in_words(policy), ""]
    if not feasible:
        lines += [f"**Not feasible**: its error is above the ceiling. {pictures} pictures were made.", ""]
    elif pruned:
        lines += [f"Given up after {pictures} pictures, on which others are better.", ""]
    lines += ["| | |", "|---|---|"]
    lines += [
        f"| compute | {cost.relative:.1%} of the full run, {cost.flops / 1e9:.4g} GFLOPs a picture |",
        *([] if cost.latency_ms is None else [f"| predicted time of a call | {cost.latency_ms:.4g} ms |"]),
        f"| loss (0 is the full run, lower is better) | {results['loss']:.4f} |",
        f"| its 95 % interval, {pictures} pictures | {results['loss_low']:.4f} to {results['loss_high']:.4f} |",
        f"| distance to the reference | {results['distance']:.4g} |",
        *(() if alignment is None else (f"| alignment with the prompt | {alignment:.4f} |",)),
        *(() if results.get("error") is None else (f"| error (0 the exact run, 1 coarse) | {results['error']:.4f} |",)),
        f"| feature distance to the full run's pictures | {results['fidelity']:.4f} |",
    ]
    return "\n".join(lines)


def note_attributes(trial: optuna.Trial, note: str) -> Iterator[tuple[str, Any]]:
    """The system attributes of a study in which the dashboard keeps a trial's note, by name.

    Its ``save_note`` writes the same but reads the notes of all other trials first.
    """
    begins = f"dashboard:{id_of(trial)}:note"
    yield f"{begins}_ver", 1
    for part, start in enumerate(range(0, len(note), _PART)):
        yield f"{begins}_str:{part}", note[start : start + _PART]


def failure_note(reason: str | None) -> str:
    """Markdown for a trial that failed; without a reason it was cut off."""
    if reason is None:
        return "**Cut off** by an interrupt or with its worker. What it was to try went back into the queue."
    if reason == OVER_BUDGET:
        return f"**Over the budget**, and not run: {reason}."
    return f"**Failed**: {reason}"
