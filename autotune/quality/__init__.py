"""Judging pictures: features, distances, alignment with prompts, and the one number the search lowers.

Importing this package loads neither torch nor open_clip; the first use of a name loads what it needs.

Example::

    from autotune.quality import Baseline, Evaluation, Objective, Reference, Scorer, coarse, shuffled_alignment

    scorer = Scorer("runs/emoji/clip")
    text = scorer.text_features(prompts)
    features = scorer.image_features(full_pictures)
    baseline = Baseline(
        full=Evaluation.of(features, text),
        coarse=scorer.image_features(coarse(full_pictures)),
        chance=shuffled_alignment(features, text),
        prompts=tuple(prompts),
    )
    objective = Objective(Reference.load("reference.safetensors"), baseline)
    objective.score(Evaluation.of(scorer.image_features(pictures), text)).loss
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.core.lazy import attributes

if TYPE_CHECKING:
    from autotune.quality.alignment import prompt_alignment, shuffled_alignment
    from autotune.quality.estimators import Estimator, estimator
    from autotune.quality.evaluations import Baseline, Evaluation, coarse
    from autotune.quality.extractor import FeatureNetwork
    from autotune.quality.features import Scorer
    from autotune.quality.fidelity import Fidelity, measure_fidelity
    from autotune.quality.frechet import Gaussian, fit, frechet_distance
    from autotune.quality.networks import feature_network
    from autotune.quality.objective import Objective
    from autotune.quality.panel import Panel
    from autotune.quality.prompts import general_categories, general_prompts, load_prompts, split
    from autotune.quality.reference import Reference
    from autotune.quality.scores import FIDELITY, QUALITY, Intervals, Score, Weights

__all__ = [
    "FIDELITY",
    "QUALITY",
    "Baseline",
    "Estimator",
    "Evaluation",
    "FeatureNetwork",
    "Fidelity",
    "Gaussian",
    "Intervals",
    "Objective",
    "Panel",
    "Reference",
    "Score",
    "Scorer",
    "Weights",
    "coarse",
    "estimator",
    "feature_network",
    "fit",
    "frechet_distance",
    "general_categories",
    "general_prompts",
    "load_prompts",
    "measure_fidelity",
    "prompt_alignment",
    "shuffled_alignment",
    "split",
]

_HOMES = {
    "alignment": ("prompt_alignment", "shuffled_alignment"),
    "estimators": ("Estimator", "estimator"),
    "evaluations": ("Baseline", "Evaluation", "coarse"),
    "extractor": ("FeatureNetwork",),
    "features": ("Scorer",),
    "fidelity": ("Fidelity", "measure_fidelity"),
    "frechet": ("Gaussian", "fit", "frechet_distance"),
    "networks": ("feature_network",),
    "objective": ("Objective",),
    "panel": ("Panel",),
    "prompts": ("general_categories", "general_prompts", "load_prompts", "split"),
    "reference": ("Reference",),
    "scores": ("FIDELITY", "QUALITY", "Intervals", "Score", "Weights"),
}


__getattr__ = attributes(__name__, {name: home for home, names in _HOMES.items() for name in names})


def __dir__() -> list[str]:
    return __all__
