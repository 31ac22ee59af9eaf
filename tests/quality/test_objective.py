from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autotune.quality import Evaluation, Gaussian, Objective, fit, frechet_distance

N, D = 160, 128
SPREAD = (torch.arange(D) + 1.0).pow(-0.7)


def draw(n: int, seed: int) -> Tensor:
    """Directions with a falling spectrum, as a real network's features have."""
    return F.normalize(torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) * SPREAD, dim=1)


TEXT = draw(N, 0)
REFERENCE = fit(draw(3000, 1))


def pictures(noise: float, seed: int = 2, offset: float = 0.0) -> Evaluation:
    """Features around their prompts': more noise is worse alignment, an offset a worse distance."""
    return Evaluation.of(F.normalize(TEXT + noise * draw(N, seed) + offset, dim=1), TEXT)


FULL = pictures(1.0)


@pytest.fixture(scope="module")
def objective() -> Objective:
    return Objective(REFERENCE, FULL, TEXT)


def test_the_full_run_scores_exactly_zero(objective: Objective) -> None:
    assert objective.score(FULL).loss == 0.0
    again = Evaluation(FULL.features.clone(), FULL.alignment.clone())
    assert objective.score(again).loss == 0.0


def test_the_loss_is_the_documented_sum(objective: Objective) -> None:
    candidate = pictures(2.0, offset=0.03)
    cosine = FULL.features.double() @ TEXT.double().T
    chance = float((cosine.sum() - cosine.trace()) / (N * (N - 1)))
    _, directions = torch.linalg.eigh(REFERENCE.covariance)
    leading = directions[:, -32:]
    fd, fd_full = (
        frechet_distance(fit(e.features.double() @ leading), REFERENCE.project(leading)) for e in (candidate, FULL)
    )
    a, a_full = float(candidate.alignment.double().mean()), float(FULL.alignment.double().mean())
    score = objective.score(candidate)
    assert score.fd == pytest.approx(fd)
    assert score.alignment == pytest.approx(a)
    assert objective.chance == pytest.approx(chance, abs=1e-6)
    assert score.loss == pytest.approx(fd / fd_full - 1 + (a_full - a) / (a_full - chance), rel=1e-4)


def test_weights_apply_to_their_terms() -> None:
    candidate = pictures(2.0, offset=0.1)

    def loss(weight_fd: float, weight_clip: float) -> float:
        objective = Objective(REFERENCE, FULL, TEXT, weight_fd=weight_fd, weight_clip=weight_clip)
        return objective.score(candidate).loss

    assert loss(1, 0) > 0.1
    assert loss(0, 1) > 0.1
    assert loss(3, 5) == pytest.approx(3 * loss(1, 0) + 5 * loss(0, 1))


def test_worse_pictures_score_worse(objective: Objective) -> None:
    losses = [objective.score(pictures(1.0, offset=offset)).loss for offset in (0.0, 0.03, 0.06, 0.12)]
    assert losses == sorted(losses)
    assert losses[-1] > 1


def test_all_components_give_the_whole_distance() -> None:
    objective = Objective(REFERENCE, FULL, TEXT, components=D)
    assert objective.score(FULL).fd == pytest.approx(frechet_distance(fit(FULL.features), REFERENCE), rel=1e-6)


def test_intervals_hold_their_estimates(objective: Objective) -> None:
    candidate = pictures(1.5, offset=0.03)
    score, intervals = objective.score(candidate), objective.interval(candidate)
    for name in ("loss", "fd", "alignment"):
        interval = getattr(intervals, name)
        assert interval.estimate == getattr(score, name)
        assert interval.low < interval.estimate < interval.high
    assert objective.interval(FULL).loss.low == objective.interval(FULL).loss.high == 0.0


def test_the_alignment_interval_is_the_textbook_one(objective: Objective) -> None:
    candidate = pictures(1.5)
    interval = objective.interval(candidate, resamples=4000).alignment
    error = float(candidate.alignment.std(correction=0)) / N**0.5
    assert interval.low == pytest.approx(interval.estimate - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(interval.estimate + 1.96 * error, abs=0.15 * error)


def test_a_higher_level_is_a_wider_interval(objective: Objective) -> None:
    narrow, wide = (objective.interval(pictures(1.5), level=level).loss for level in (0.5, 0.95))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_comparison_of_the_same_is_zero(objective: Objective) -> None:
    interval = objective.compare(pictures(1.5), pictures(1.5))
    assert (interval.low, interval.estimate, interval.high) == (0.0, 0.0, 0.0)


def test_comparison_tells_clearly_worse_pictures(objective: Objective) -> None:
    worse, better = pictures(1.0, offset=0.06), pictures(1.0)
    interval = objective.compare(worse, better)
    assert 0 < interval.low < interval.estimate < interval.high
    mirrored = objective.compare(better, worse)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low))


def test_comparison_leaves_open_what_is_open(objective: Objective) -> None:
    interval = objective.compare(pictures(1.0, seed=3), pictures(1.0, seed=4))
    assert interval.low < 0 < interval.high


def test_pairing_is_sharper_than_independent_intervals(objective: Objective) -> None:
    a, b = pictures(1.0, offset=0.02), pictures(1.0, offset=0.01)
    paired = objective.compare(a, b)
    alone = [objective.interval(x).fd for x in (a, b)]
    full = objective.score(FULL).fd
    independent = sum(((i.high - i.low) / full) ** 2 for i in alone) ** 0.5
    assert paired.high - paired.low < 0.5 * independent


def test_the_bootstrap_is_seeded(objective: Objective) -> None:
    candidate = pictures(1.5)
    assert objective.interval(candidate, seed=1) == objective.interval(candidate, seed=1)
    assert objective.interval(candidate, seed=1) != objective.interval(candidate, seed=2)


def test_a_thousand_resamples_take_under_three_seconds(objective: Objective) -> None:
    # Processor time of this process, so that a busy machine does not fail the test.
    start = time.process_time()
    objective.interval(pictures(1.5), resamples=1000)
    assert time.process_time() - start < 3 * torch.get_num_threads()


def test_a_full_run_at_chance_level_is_refused() -> None:
    with pytest.raises(ValueError, match="score with a model that knows such prompts"):
        Objective(REFERENCE, Evaluation.of(-TEXT, TEXT), TEXT)


def test_evaluations_that_do_not_fit_are_refused(objective: Objective) -> None:
    fewer = Evaluation(FULL.features[:100], FULL.alignment[:100])
    with pytest.raises(ValueError, match="evaluate the same prompts"):
        objective.score(fewer)
    with pytest.raises(ValueError, match="different scoring models"):
        Objective(Gaussian(torch.zeros(3), torch.eye(3), 9), FULL, TEXT)
    with pytest.raises(ValueError, match=r"go with alignments \(N,\)"):
        Evaluation(FULL.features, FULL.alignment[:3])


def test_values_that_are_not_finite_name_the_picture() -> None:
    features = FULL.features.clone()
    features[7, 3] = float("nan")
    with pytest.raises(ValueError, match="features of picture 7"):
        Evaluation(features, FULL.alignment)


def test_pictures_of_one_prompt_are_resampled_together() -> None:
    """Copies of a prompt's row add no certainty: the interval of the alignment stays as wide as without them."""
    generator = torch.Generator().manual_seed(0)
    text = torch.nn.functional.normalize(torch.randn(40, 16, generator=generator), dim=1)
    image = torch.nn.functional.normalize(text + 0.2 * torch.randn(40, 16, generator=generator), dim=1)
    reference = fit(image)

    def width(copies: int) -> float:
        rows = text.repeat(copies, 1)
        evaluation = Evaluation.of(image.repeat(copies, 1), rows)
        interval = Objective(reference, evaluation, rows, components=8).interval(evaluation).alignment
        return interval.high - interval.low

    assert width(4) == pytest.approx(width(1), rel=0.15)
