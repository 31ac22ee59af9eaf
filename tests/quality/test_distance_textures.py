"""Textures compared with real ones: what they gain makes up for drift, and for nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autotune.quality import Baseline, Evaluation, Objective, Reference
from autotune.quality.panel import Panel

COUNT, BANDS = 80, 3
REAL, FULL, COARSE = 0.2, 0.5, 0.1


def textures(level: float) -> Tensor:
    """(COUNT, BANDS) around a level, the same picture by picture for all levels."""
    return level + 0.05 * torch.randn(COUNT, BANDS, generator=torch.Generator().manual_seed(0))


def evaluation(level: float, exact: float, alignment: float = 0.9) -> Evaluation:
    """Of pictures with textures of a level, whose exact run's have another one."""
    features = torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(1))
    seen = textures(level)
    changes = (seen - textures(exact)).double()
    return Evaluation(features, torch.full((COUNT,), alignment), {"drift": changes}, {"distance-textures": seen})


def objective(**weights: float) -> Objective:
    full, bad = evaluation(FULL, FULL), evaluation(COARSE, FULL)
    reference = Reference.of(torch.randn(200, 4, generator=torch.Generator().manual_seed(2)))
    chance, prompts = torch.full((COUNT,), 0.1), tuple(map(str, range(COUNT)))
    baseline = Baseline(full, bad.features + 1, chance, prompts, bad.errors, bad.further)
    real = {"distance-textures": Reference.of(textures(REAL))}
    return Objective(reference, baseline, weights=Panel(weights), references=real)


PANEL = {"alignment": 1.0, "drift": 2.0, "distance-textures": 0.5}


def test_the_unit_is_that_of_the_drift() -> None:
    terms = objective(**PANEL).score(evaluation(0.4, FULL)).terms
    assert terms["drift"] == pytest.approx(0.25) and terms["distance-textures"] == pytest.approx(-0.25, abs=1e-3)


def test_guidance_that_brings_textures_nearer_to_real_ones_makes_up_for_drift() -> None:
    judged = objective(**PANEL)
    softer = judged.score(evaluation(0.3, 0.35)).loss
    assert softer == pytest.approx(2 * 0.125 - 0.5 * 0.5, abs=0.01)
    # As much drift with textures like the full run's.
    assert softer < judged.score(evaluation(0.5, 0.55)).loss - 0.2


def test_and_for_nothing_else() -> None:
    judged = objective(**PANEL)
    washed_out = judged.score(evaluation(0.3, 0.3, alignment=0.7))
    assert washed_out.terms["distance-textures"] < -0.4
    assert washed_out.loss == pytest.approx(0.2 / 0.8)


def test_textures_that_an_approximation_adds_cannot_gain() -> None:
    judged = objective(**PANEL)
    losses = [judged.score(evaluation(level, FULL)).loss for level in (0.5, 0.45, 0.4, 0.3, 0.2, 0.1)]
    assert losses == sorted(losses) and losses[0] == 0.0


def test_what_is_lost_counts_whatever_drifts() -> None:
    assert objective(**PANEL).score(evaluation(0.6, 0.6)).loss == pytest.approx(0.5 * 0.25, abs=0.01)


def test_without_drift_on_the_panel_gains_stand_for_themselves() -> None:
    alone = objective(**{"distance-textures": 1.0})
    assert alone.score(evaluation(0.3, 0.3)).loss == pytest.approx(-0.5, abs=0.01)


def test_few_pictures_are_told_apart_too() -> None:
    early = objective(distance=1.0, **PANEL).early(8)
    assert early.panel.weight("distance") == 0 and early.panel.weight("distance-textures") == 0.5
