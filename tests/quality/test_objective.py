from __future__ import annotations

import time

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality import (
    FIDELITY,
    Baseline,
    Evaluation,
    Gaussian,
    Objective,
    Reference,
    Weights,
    coarse,
    fit,
    frechet_distance,
    shuffled_alignment,
)
from autotune.quality.estimators import NAMES
from autotune.quality.fidelity import feature_distances

N, D = 160, 128
SPREAD = (torch.arange(D) + 1.0).pow(-0.7)


def draw(n: int, seed: int) -> Tensor:
    """Directions with a falling spectrum, as a real network's features have."""
    return F.normalize(torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) * SPREAD, dim=1)


TEXT = draw(N, 0)
PROMPTS = tuple(f"prompt {row}" for row in range(N))
REFERENCE = Reference.of(draw(3000, 1), shrink=True)


def pictures(noise: float, seed: int = 2, offset: float = 0.0) -> Evaluation:
    """Features around their prompts': more noise is worse alignment, an offset a worse distance."""
    return Evaluation.of(F.normalize(TEXT + noise * draw(N, seed) + offset, dim=1), TEXT)


def aligned(evaluation: Evaluation) -> Tensor:
    assert evaluation.alignment is not None
    return evaluation.alignment


FULL = pictures(1.0)
COARSE = F.normalize(FULL.features + 0.15, dim=1)
BASELINE = Baseline(FULL, COARSE, shuffled_alignment(FULL.features, TEXT), PROMPTS)


@pytest.fixture(scope="module")
def objective() -> Objective:
    return Objective(REFERENCE, BASELINE, distance="frechet-shrunk-subspace-32")


@pytest.mark.parametrize("distance", NAMES)
@pytest.mark.parametrize("weights", [Weights(), Weights(1, 0), Weights(0, 1), FIDELITY])
def test_the_full_run_scores_exactly_zero(distance: str, weights: Weights) -> None:
    objective = Objective(REFERENCE, BASELINE, distance=distance, weights=weights)
    assert objective.score(FULL).loss == 0.0
    again = Evaluation(FULL.features.clone(), aligned(FULL).clone())
    assert objective.score(again).loss == 0.0


@pytest.mark.parametrize("distance", NAMES)
def test_the_anchors_score_exactly_one(distance: str) -> None:
    """Coarse pictures in distance and fidelity, prompts dealt at random in alignment."""
    blurred = Evaluation(COARSE, BASELINE.chance)
    for weights in (Weights(1, 0), Weights(0, 1), FIDELITY):
        objective = Objective(REFERENCE, BASELINE, distance=distance, weights=weights)
        assert objective.score(blurred).loss == pytest.approx(1, abs=1e-6)


def test_the_loss_is_the_documented_sum() -> None:
    weights = Weights(2, 3, 5)
    objective = Objective(REFERENCE, BASELINE, distance="frechet-shrunk-subspace-32", weights=weights)
    candidate = pictures(2.0, offset=0.03)
    _, directions = torch.linalg.eigh(REFERENCE.gaussian.covariance)
    leading = directions[:, -32:]
    fd, fd_full, fd_coarse = (
        frechet_distance(fit(x.double() @ leading), REFERENCE.gaussian.project(leading))
        for x in (candidate.features, FULL.features, COARSE)
    )
    a, a_full = float(aligned(candidate).double().mean()), float(aligned(FULL).double().mean())
    chance = float(shuffled_alignment(FULL.features, TEXT).mean())
    change, change_coarse = (float(feature_distances(x, FULL.features).mean()) for x in (candidate.features, COARSE))
    score = objective.score(candidate)
    assert score.distance == pytest.approx(fd)
    assert score.alignment == pytest.approx(a)
    assert score.fidelity == pytest.approx(change)
    assert objective.chance == pytest.approx(chance, abs=1e-6)
    terms = (fd - fd_full) / (fd_coarse - fd_full), (a_full - a) / (a_full - chance), change / change_coarse
    assert score.loss == pytest.approx(2 * terms[0] + 3 * terms[1] + 5 * terms[2], rel=1e-4)


def test_a_weight_of_nothing_leaves_its_term_out() -> None:
    """Also where the term has no meaning: scorers that do not know the prompts, references of something else."""
    blind = Baseline(Evaluation.of(-TEXT, TEXT), F.normalize(0.1 - TEXT, dim=1), torch.zeros(N), PROMPTS)
    assert Objective(REFERENCE, blind, weights=Weights(1, 0)).score(blind.full).loss == 0
    elsewhere = Reference.of(COARSE)
    assert Objective(elsewhere, BASELINE, weights=Weights(0, 1)).score(pictures(2.0)).loss > 0


def test_worse_pictures_score_worse(objective: Objective) -> None:
    losses = [objective.score(pictures(1.0, offset=offset)).loss for offset in (0.0, 0.03, 0.06, 0.12)]
    assert losses == sorted(losses)
    assert losses[-1] > 0.5


def test_the_fidelity_objective_asks_for_the_same_pictures() -> None:
    """Pictures as good as the full run's, but others, lose; changes of the full run's lose by their size."""
    objective = Objective(REFERENCE, BASELINE, weights=FIDELITY)
    assert objective.score(pictures(1.0, seed=3)).loss > 1
    slight, strong = (
        Evaluation.of(F.normalize(FULL.features + size * draw(N, 5), dim=1), TEXT) for size in (0.01, 0.05)
    )
    assert 0 < objective.score(slight).loss < objective.score(strong).loss


@pytest.mark.parametrize("distance", NAMES)
def test_intervals_hold_their_estimates(distance: str) -> None:
    objective = Objective(REFERENCE, BASELINE, distance=distance)
    candidate = pictures(1.5, offset=0.03)
    resamples = 20 if "infinity" in distance else 400
    score, intervals = objective.score(candidate), objective.interval(candidate, resamples=resamples)
    for name in ("loss", "distance", "alignment", "fidelity"):
        interval = getattr(intervals, name)
        assert interval.value == getattr(score, name)
        assert interval.low < interval.value < interval.high
    unchanged = objective.interval(FULL, resamples=resamples)
    assert unchanged.loss.low == unchanged.loss.high == 0.0


def test_a_small_unit_stretches_an_interval_and_does_not_move_it() -> None:
    """Of few pictures some resamples tell good from bad hardly at all: nothing may be divided by that."""
    rows = slice(16)
    full = Evaluation(FULL.features[rows], aligned(FULL)[rows])
    nearly = F.normalize(full.features + 0.02, dim=1)
    chance = shuffled_alignment(full.features, TEXT[rows])
    objective = Objective(REFERENCE, Baseline(full, nearly, chance, PROMPTS[rows]))
    for seed in range(10):
        other = pictures(1.0, seed=400 + seed)
        loss = objective.interval(Evaluation(other.features[rows], aligned(other)[rows])).loss
        assert loss.low < loss.value < loss.high


def test_the_alignment_interval_is_the_textbook_one(objective: Objective) -> None:
    candidate = pictures(1.5)
    interval = objective.interval(candidate, resamples=4000).alignment
    assert interval is not None
    error = float(aligned(candidate).std(correction=0)) / N**0.5
    assert interval.low == pytest.approx(interval.value - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(interval.value + 1.96 * error, abs=0.15 * error)


def test_a_higher_level_is_a_wider_interval(objective: Objective) -> None:
    narrow, wide = (objective.interval(pictures(1.5), level=level).loss for level in (0.5, 0.95))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_comparison_of_the_same_is_zero(objective: Objective) -> None:
    interval = objective.compare(pictures(1.5), pictures(1.5))
    assert (interval.low, interval.value, interval.high) == (0.0, 0.0, 0.0)


def test_comparison_tells_clearly_worse_pictures(objective: Objective) -> None:
    worse, better = pictures(1.0, offset=0.06), pictures(1.0)
    interval = objective.compare(worse, better)
    assert 0 < interval.low < interval.value < interval.high
    mirrored = objective.compare(better, worse)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low))


def test_comparison_leaves_open_what_is_open(objective: Objective) -> None:
    interval = objective.compare(pictures(1.0, seed=3), pictures(1.0, seed=4))
    assert interval.low < 0 < interval.high


def test_pairing_is_sharper_than_independent_intervals(objective: Objective) -> None:
    a, b = pictures(1.0, offset=0.02), pictures(1.0, offset=0.01)
    paired = objective.compare(a, b)
    alone = [objective.interval(x).loss for x in (a, b)]
    independent = sum((i.high - i.low) ** 2 for i in alone) ** 0.5
    assert paired.high - paired.low < 0.5 * independent


@pytest.mark.slow
@pytest.mark.parametrize("distance", ["frechet-shrunk-subspace-32", "kid"])
def test_the_full_run_with_other_seeds_is_told_from_itself_as_rarely_as_promised(distance: str) -> None:
    """Other noise, same prompts: of 100 intervals at 95 %, at least 90 hold zero."""
    held = 0
    for repeat in range(100):
        other = pictures(1.0, seed=100 + repeat)
        baseline = Baseline(
            full := pictures(1.0, seed=300 + repeat),
            F.normalize(full.features + 0.15, dim=1),
            shuffled_alignment(full.features, TEXT),
            PROMPTS,
        )
        interval = Objective(REFERENCE, baseline, distance=distance).interval(other, resamples=200).loss
        held += interval.low <= 0 <= interval.high
    assert held >= 90


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
    blind = Baseline(Evaluation.of(-TEXT, TEXT), COARSE, torch.zeros(N), PROMPTS)
    with pytest.raises(ValueError, match="score with a model that knows such prompts"):
        Objective(REFERENCE, blind)


def test_a_reference_of_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="give a reference that shows what the prompts ask for"):
        Objective(Reference.of(COARSE), BASELINE)


def test_a_distance_without_what_it_needs_is_refused() -> None:
    with pytest.raises(InputError, match="kernel distances need features"):
        Objective(Reference(REFERENCE.gaussian), BASELINE, distance="kid")
    with pytest.raises(InputError, match="there is no distance called 'fid'"):
        Objective(REFERENCE, BASELINE, distance="fid")


def test_evaluations_that_do_not_fit_are_refused(objective: Objective) -> None:
    fewer = Evaluation(FULL.features[:100], aligned(FULL)[:100])
    with pytest.raises(ValueError, match="evaluate the same prompts"):
        objective.score(fewer)
    with pytest.raises(ValueError, match="different scoring models"):
        Objective(Reference(Gaussian(torch.zeros(3), torch.eye(3), 9)), BASELINE)
    with pytest.raises(ValueError, match=r"go with alignments \(N,\)"):
        Evaluation(FULL.features, aligned(FULL)[:3])
    with pytest.raises(ValueError, match="go with coarse features of the same shape"):
        Baseline(FULL, COARSE, BASELINE.chance, PROMPTS[:-1])


def test_values_that_are_not_finite_name_the_picture() -> None:
    features = FULL.features.clone()
    features[7, 3] = float("nan")
    with pytest.raises(ValueError, match="features of picture 7"):
        Evaluation(features, aligned(FULL))


def test_pictures_of_one_prompt_are_resampled_together() -> None:
    """Copies of a prompt's row add no certainty: the interval of the alignment stays as wide as without them."""
    generator = torch.Generator().manual_seed(0)
    text = F.normalize(torch.randn(40, 16, generator=generator), dim=1)
    image = F.normalize(text + 0.2 * torch.randn(40, 16, generator=generator), dim=1)
    reference = Reference.of(image, shrink=True)

    def width(copies: int) -> float:
        rows, pictures = text.repeat(copies, 1), image.repeat(copies, 1)
        evaluation = Evaluation.of(pictures, rows)
        prompts = tuple(f"prompt {row}" for row in range(40)) * copies
        baseline = Baseline(evaluation, F.normalize(pictures + 1, dim=1), shuffled_alignment(pictures, rows), prompts)
        objective = Objective(reference, baseline, distance="frechet-shrunk-subspace-8")
        interval = objective.interval(evaluation).alignment
        assert interval is not None
        return interval.high - interval.low

    assert width(4) == pytest.approx(width(1), rel=0.15)


def test_coarse_pictures_keep_their_size_and_lose_their_detail() -> None:
    stripes = torch.zeros(2, 3, 64, 96, dtype=torch.uint8)
    stripes[..., ::2] = 255
    spoiled = coarse(stripes)
    assert spoiled.shape == stripes.shape
    assert spoiled.dtype == torch.uint8
    assert spoiled.float().std() < 1
    flat = torch.full((1, 3, 32, 32), 77, dtype=torch.uint8)
    assert torch.equal(coarse(flat), flat)
