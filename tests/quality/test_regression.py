"""Means of few changes, mended by others that are known of all pictures."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from autotune.quality import Baseline, Evaluation, Objective, Reference
from autotune.quality.panel import Panel
from autotune.quality.regression import regressed_means
from tests.quality.samples import SEEDS, normal

N, FEW, D = 64, 8, 27
ALL = torch.arange(N)[None]


@given(SEEDS)
def test_where_both_changes_are_the_same_all_pictures_count(seed: int) -> None:
    known = normal(seed, N, D)
    torch.testing.assert_close(regressed_means(known[:FEW], known, ALL), known.mean(0)[None])


@given(SEEDS)
def test_without_further_pictures_or_any_change_it_is_the_mean(seed: int) -> None:
    few, known = normal(seed, FEW, D), normal(seed + 1, N, D)
    torch.testing.assert_close(regressed_means(few, known, ALL[:, :FEW]), few.mean(0)[None])
    torch.testing.assert_close(regressed_means(few, torch.zeros(N, D), ALL), few.mean(0)[None])
    torch.testing.assert_close(regressed_means(few, torch.ones(N, D) / 3, ALL), few.mean(0)[None])


@given(SEEDS, st.lists(st.integers(0, N - 1), min_size=1, max_size=2 * N))
def test_a_selection_is_what_its_rows_are(seed: int, drawn: list[int]) -> None:
    few, known = normal(seed, FEW, D), normal(seed + 1, N, D)
    found = regressed_means(few, known, torch.tensor([drawn, drawn[::-1]]))
    paired = [row for row in drawn if row < FEW] or list(range(FEW))
    ours, first = few[paired], known[paired]
    apart = first - first.mean(0)
    spread = float(apart.square().sum())
    slope = min(max(float(((ours - ours.mean(0)) * apart).sum()) / spread, 0.0), 1.0) if len({*paired}) > 1 else 0.0
    expected = ours.mean(0) + slope * (known[drawn].mean(0) - first.mean(0))
    torch.testing.assert_close(found, torch.stack([expected, expected]))


def test_changes_that_go_together_are_known_better_and_others_hardly_worse() -> None:
    wrong: dict[str, list[Tensor]] = {"together, mean": [], "together": [], "apart, mean": [], "apart": []}
    for seed in range(300):
        known = normal(seed, N, D)
        for name, changes in (
            ("together", known + 0.3 * normal(seed + 1000, N, D)),
            ("apart", normal(seed + 2000, N, D)),
        ):
            wrong[f"{name}, mean"].append((changes[:FEW].mean(0) - changes.mean(0)).square().mean())
            wrong[name].append((regressed_means(changes[:FEW], known, ALL) - changes.mean(0)).square().mean())
    error = {name: torch.stack(each).mean().sqrt() for name, each in wrong.items()}
    assert error["together"] < 0.5 * error["together, mean"]
    assert error["apart"] < 1.1 * error["apart, mean"]


def judged(changes: Tensor, textures: bool = True) -> Evaluation:
    """Pictures whose textures are the full run's with these changes, of the full run's intent."""
    further = {"distance-textures": normal(2, N, D) + changes} if textures else {}
    return Evaluation(normal(1, N, 4), None, {"drift": changes[:FEW]}, further)


def objective(textures: bool = True) -> Objective:
    """Coarse pictures' textures are one lower."""
    full, coarse = (judged(torch.full((N, D), change, dtype=torch.float64), textures) for change in (0.0, -1.0))
    prompts = tuple(map(str, range(N)))
    baseline = Baseline(full, full.features + 1, None, prompts, coarse.errors, coarse.further)
    weights = {"drift": 1.0} | ({"distance-textures": 1.0} if textures else {})
    real = {"distance-textures": Reference.of(normal(3, 200, D) - 3)}
    return Objective(Reference.of(normal(4, 200, 4)), baseline, weights=Panel(weights), references=real)


def drift(changes: Tensor, textures: bool = True, count: int = N) -> float:
    """By what coarse pictures have."""
    return objective(textures).head(count).score(judged(changes, textures).head(count)).terms["drift"]


def test_drift_is_that_of_all_pictures_where_textures_are_judged_too() -> None:
    lucky = torch.full((N, D), 0.1, dtype=torch.float64) + 0.001 * normal(5, N, D)
    lucky[:FEW] -= 0.05
    lucky[FEW:] += 0.05 * FEW / (N - FEW)
    assert drift(lucky) == pytest.approx(0.1, abs=0.002)
    assert drift(lucky, textures=False) == pytest.approx(0.05, abs=0.002)
    # Of the pictures in pairs alone there is nothing else to know.
    assert drift(lucky, count=FEW) == pytest.approx(0.05, abs=0.002)
    assert drift(torch.zeros(N, D, dtype=torch.float64)) == 0


def test_an_exact_run_with_guidance_of_its_own_does_not_drift() -> None:
    plain = judged(normal(5, N, D))
    exact = Evaluation(plain.features, None, {"drift": torch.zeros(FEW)}, plain.further)
    terms = [objective().score(each).terms["drift"] for each in (exact, plain)]
    assert terms[0] == 0 != terms[1]
