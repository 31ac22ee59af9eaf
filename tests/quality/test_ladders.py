"""Spoiling pictures of a real model, slightly and badly: the objective must see all of it."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from autotune.evaluation.pictures import generate
from autotune.models.shipped import demo_assets, demo_pipeline
from autotune.quality import Baseline, Evaluation, Objective, Reference, Scorer, coarse, shuffled_alignment
from autotune.quality.fidelity import feature_distances
from autotune.quality.panel import DEFAULT_PANEL, DRIFT, ERROR
from autotune.quality.wavelets import drift, textures
from studies.proxy.judges import CEILING
from studies.proxy.spoiling import FINE_LADDERS, LADDERS

N = 96


class Bench:
    """Pictures of the shipped model in a few steps, and the objective as a search uses it."""

    def __init__(self) -> None:
        assets, pipe = demo_assets(), demo_pipeline()
        pipe.set_progress_bar_config(disable=True)
        prompts = assets.tuning_prompts[:: len(assets.tuning_prompts) // N][:N]
        self.pictures = generate(pipe, prompts, range(N), guidance_scale=assets.guidance_scale, steps=6, batch_size=32)
        self.scorer = Scorer(assets.scorer_dir)
        self.text = self.scorer.text_features(prompts)
        full = self.evaluation(self.pictures)
        coarsest = coarse(self.pictures)
        spoiled = self.scorer.image_features(coarsest)
        chance = shuffled_alignment(full.features, self.text)
        self.objective = Objective(Reference.load(assets.reference), Baseline(full, spoiled, chance, tuple(prompts)))
        self.features, self.textures = full.features, textures(self.pictures)
        self.units = self._drift(coarsest), self._error(spoiled)

    def evaluation(self, pictures: Tensor) -> Evaluation:
        return Evaluation.of(self.scorer.image_features(pictures), self.text)

    def loss(self, pictures: Tensor) -> float:
        return self._loss(self.evaluation(pictures))

    def loss_with_errors(self, pictures: Tensor) -> float:
        """Drift and error against the pictures as they were, each in the unit of coarse ones."""
        evaluation = self.evaluation(pictures)
        found = self._drift(pictures), self._error(evaluation.features)
        drifted, error = (value / unit for value, unit in zip(found, self.units, strict=True))
        weighed = DEFAULT_PANEL[DRIFT] * drifted + DEFAULT_PANEL[ERROR] * min(error, CEILING)
        return self._loss(evaluation) + weighed

    def _loss(self, evaluation: Evaluation) -> float:
        return self.objective.score(evaluation).loss

    def _drift(self, pictures: Tensor) -> float:
        return float(drift(textures(pictures) - self.textures, torch.arange(N)[None]))

    def _error(self, features: Tensor) -> float:
        return float(feature_distances(features, self.features).mean())


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("ladder", LADDERS)
def test_the_objective_rises_strictly_along_the_ladder(bench: Bench, ladder: str) -> None:
    spoil, strengths = LADDERS[ladder]
    losses = [bench.loss(bench.pictures), *(bench.loss(spoil(bench.pictures, strength)) for strength in strengths)]
    assert losses[0] == 0
    assert all(better < worse for better, worse in itertools.pairwise(losses)), losses


@pytest.mark.parametrize("ladder", [*LADDERS, *FINE_LADDERS])
def test_with_errors_the_loss_rises_strictly_along_fine_ladders_too(bench: Bench, ladder: str) -> None:
    spoil, strengths = (LADDERS if ladder in LADDERS else FINE_LADDERS)[ladder]
    losses = [bench.loss_with_errors(spoil(bench.pictures, strength)) for strength in strengths]
    assert all(better < worse for better, worse in itertools.pairwise((0.0, *losses))), losses


def test_one_good_picture_for_every_prompt_is_no_good(bench: Bench) -> None:
    """Total collapse: the picture that matches its prompt best, for everybody."""
    alignment = bench.evaluation(bench.pictures).alignment
    assert alignment is not None
    best = int(alignment.argmax())
    collapsed = bench.pictures[best].expand_as(bench.pictures)
    assert bench.loss(collapsed) > 2


def test_collapse_within_what_prompts_allow_is_seen(bench: Bench) -> None:
    """Every picture drawn towards the mean of all: no prompt is missed more than before, but variety is."""
    features = bench.evaluation(bench.pictures).features
    centre = features.mean(0)
    drawn = torch.nn.functional.normalize(features.lerp(centre, 0.5), dim=1)
    same_alignment = Evaluation(drawn, bench.evaluation(bench.pictures).alignment)
    assert bench.objective.compare(same_alignment, bench.evaluation(bench.pictures)).low > 0
