"""Which knobs mattered."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import optuna

from autotune.report.run import Run

LEAST_CANDIDATES = 20
"""Fewer say little about eight knobs or so."""


def importance_of(run: Run) -> Mapping[str, float]:
    """Share of each knob in what tells the best tenth of the candidates from the rest, the largest first.

    PED-ANOVA (Watanabe et al., IJCAI 2023). Empty where there are too few candidates.
    """
    if len(run.evaluated) < LEAST_CANDIDATES:
        return {}
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    with warnings.catch_warnings():
        # It says that it is experimental.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = optuna.importance.get_param_importances(run.study, evaluator=evaluator)
    return dict(sorted(found.items(), key=lambda item: -item[1]))
