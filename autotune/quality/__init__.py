"""Judging pictures: features, distances, alignment with prompts, and the one number the search lowers.

Importing this package loads neither torch nor open_clip; the first use of a name loads what it needs.

Example::

    from autotune.quality import Evaluation, Gaussian, Objective, Scorer

    scorer = Scorer("runs/emoji/clip")
    text = scorer.text_features(prompts)
    full = Evaluation.of(scorer.image_features(full_pictures), text)
    objective = Objective(Gaussian.load("reference.safetensors"), full, text)
    objective.score(Evaluation.of(scorer.image_features(pictures), text)).loss
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autotune.quality.alignment import prompt_alignment, shuffled_alignment
    from autotune.quality.features import Scorer
    from autotune.quality.frechet import Gaussian, fit, frechet_distance
    from autotune.quality.objective import Evaluation, Interval, Intervals, Objective, Score
    from autotune.quality.prompts import load_prompts, split

__all__ = [
    "Evaluation",
    "Gaussian",
    "Interval",
    "Intervals",
    "Objective",
    "Score",
    "Scorer",
    "fit",
    "frechet_distance",
    "load_prompts",
    "prompt_alignment",
    "shuffled_alignment",
    "split",
]

_HOMES = {
    "alignment": ("prompt_alignment", "shuffled_alignment"),
    "features": ("Scorer",),
    "frechet": ("Gaussian", "fit", "frechet_distance"),
    "objective": ("Evaluation", "Interval", "Intervals", "Objective", "Score"),
    "prompts": ("load_prompts", "split"),
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
