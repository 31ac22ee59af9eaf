"""Terms of the loss that are of pairs, or of judges beside scorer and network."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality import Baseline, Evaluation, Objective, Panel, Reference
from autotune.quality.fidelity import feature_distances
from autotune.quality.terms import paired_mean

N, PAIRS, D = 48, 12, 6
PANEL = Panel({"distance": 1.0, "error": 2.0})


def rows(seed: int, count: int = N) -> Tensor:
    return torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


REFERENCE = Reference.of(rows(0, 500))
COARSE_ERRORS = torch.rand(PAIRS, generator=torch.Generator().manual_seed(1)).double() + 0.5
FULL = Evaluation(rows(2), errors={"error": torch.zeros(PAIRS)})
# Twenty-four prompts, each with two seeds.
PROMPTS = tuple(f"prompt {row % 24}" for row in range(N))
# As far from the full run's in all pictures: coarse errors have nothing to go together with.
BASELINE = Baseline(FULL, -3 * rows(2), None, PROMPTS, coarse_errors={"error": COARSE_ERRORS})


def erring(error: float, features: Tensor = FULL.features) -> Evaluation:
    return Evaluation(features, errors={"error": error * COARSE_ERRORS})


@pytest.fixture(scope="module")
def objective() -> Objective:
    return Objective(REFERENCE, BASELINE, distance="frechet", weights=PANEL)


@given(st.data())
def test_a_paired_mean_is_over_those_rows_that_have_an_error(data: st.DataObject) -> None:
    pairs = data.draw(st.integers(1, 6))
    values = torch.tensor(data.draw(st.lists(st.floats(0, 9), min_size=pairs, max_size=pairs)), dtype=torch.float64)
    drawn = data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=12))
    found = paired_mean(values, torch.tensor([drawn]))
    selected = [float(values[row]) for row in drawn if row < pairs]
    assert float(found) == pytest.approx(sum(selected) / len(selected) if selected else float(values.mean()))


def test_errors_are_zero_for_the_exact_run_and_one_for_coarse_pictures(objective: Objective) -> None:
    assert objective.score(FULL).loss == 0
    for error in (0.0, 0.25, 1.0):
        score = objective.score(erring(error))
        # From a half on it is another picture, which says nothing of how good it is.
        assert score.error == pytest.approx(error) and score.loss == pytest.approx(2 * min(error, 0.5))
        assert score.terms == pytest.approx({"distance": 0, "error": error})


def test_intervals_are_of_resampled_prompts(objective: Objective) -> None:
    found = objective.interval(erring(0.2), resamples=300)
    assert found.error is not None
    assert found.error.value == pytest.approx(0.2)
    assert found.error.low < found.error.value < found.error.high
    # With the features held fast all doubt about the loss is of the error.
    assert (found.loss.low, found.loss.high) == pytest.approx((2 * found.error.low, 2 * found.error.high))
    # What errs twice as much everywhere is worse by the same in every resample.
    difference = objective.compare(erring(0.3), erring(0.15), resamples=300)
    assert difference.low > 0


@pytest.mark.parametrize("count", [5, PAIRS, 30])
def test_of_the_first_pictures_errors_are_of_those_that_have_one(objective: Objective, count: int) -> None:
    head = objective.head(count)
    evaluation = erring(0.5).head(count)
    wanted = 0.5 * COARSE_ERRORS[:count].mean() / COARSE_ERRORS.mean()
    assert head.score(evaluation).error == pytest.approx(float(wanted))
    assert head.score(FULL.head(count)).loss == 0
    assert head.interval(evaluation, resamples=20).error is not None


def test_errors_go_together_with_changes_from_the_full_run(objective: Objective) -> None:
    """Of plain fewer steps the exact run is the full run: what changes in all pictures is the error of all."""
    features = rows(2) + 0.3 * rows(3)
    changes = feature_distances(features, FULL.features)
    unit = COARSE_ERRORS.mean()
    plain = Evaluation(features, errors={"error": changes[:PAIRS]})
    assert objective.score(plain).terms["error"] == pytest.approx(float(changes.mean() / unit))
    # Of another intent errors are lower than changes, as much lower in all pictures as in those in pairs.
    lower = Evaluation(features, errors={"error": changes[:PAIRS] / 3})
    assert objective.score(lower).terms["error"] == pytest.approx(float(changes.mean() / 3 / unit))
    # Of the pictures in pairs alone nothing else is known.
    first = objective.head(PAIRS).score(plain.head(PAIRS)).terms["error"]
    assert first == pytest.approx(float(changes[:PAIRS].mean() / unit))


def test_what_coarse_pictures_err_is_known_of_all_of_them() -> None:
    coarse = -3 * rows(2) + rows(5)
    changes = feature_distances(coarse, FULL.features)
    baseline = Baseline(FULL, coarse, None, PROMPTS, coarse_errors={"error": changes[:PAIRS]})
    found = Objective(REFERENCE, baseline, distance="frechet", weights=PANEL)
    error = found.score(Evaluation(FULL.features, errors={"error": torch.full((PAIRS,), 0.1)})).error
    assert error == pytest.approx(0.1 / float(changes.mean()))


def test_several_judges_of_pairs_have_a_mean_and_a_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    from autotune.quality.panel import JUDGES

    monkeypatch.setitem(JUDGES, "other", JUDGES["error"])
    panel = Panel({"distance": 1, "error": 1, "other": 0}, ceiling=0.3)
    errors = {"error": torch.zeros(PAIRS), "other": torch.zeros(4)}
    baseline = Baseline(
        Evaluation(FULL.features, errors=errors), BASELINE.coarse, None, PROMPTS,
        coarse_errors={"error": COARSE_ERRORS, "other": torch.full((4,), 8.0)},
    )  # fmt: skip
    objective = Objective(REFERENCE, baseline, distance="frechet", weights=panel)
    found = objective.score(Evaluation(FULL.features, errors={"error": 0.2 * COARSE_ERRORS, "other": torch.ones(4)}))
    assert found.error == pytest.approx((0.2 + 1 / 8) / 2) and found.loss == pytest.approx(0.2)
    assert objective.feasible(found.error) and objective.feasible(0.3) and not objective.feasible(0.31)
    assert Objective(REFERENCE, baseline, distance="frechet", weights=PANEL).feasible(9.0)


def test_what_was_not_judged_is_said(objective: Objective) -> None:
    with pytest.raises(ValueError, match="not judged by error"):
        objective.score(Evaluation(FULL.features))
    with pytest.raises(ValueError, match="of the first of 48 pictures"):
        Evaluation(FULL.features, errors={"error": torch.zeros(N + 1)})
    with pytest.raises(ValueError, match="judgements by error of picture 1 "):
        Evaluation(FULL.features, errors={"error": torch.tensor([0.0, torch.nan])})
    blind = Baseline(FULL, BASELINE.coarse, None, PROMPTS, coarse_errors={"error": torch.zeros(PAIRS)})
    with pytest.raises(InputError, match="judge error finds the full run's pictures no better than 16-pixel"):
        Objective(REFERENCE, blind, distance="frechet", weights=PANEL)


def test_signed_changes_count_where_they_are_alike_in_all_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    alike = torch.full((PAIRS, 3), 0.2, dtype=torch.float64)
    contrary = torch.randn(PAIRS, 3, generator=generator, dtype=torch.float64)
    contrary = contrary - contrary.mean(0)
    rows = torch.arange(2 * PAIRS)[None]
    assert float(paired_mean(alike, rows)) == pytest.approx(0.2)
    assert float(paired_mean(contrary, rows)) == pytest.approx(0)
    assert float(paired_mean(contrary - alike, rows)) == pytest.approx(0.2)
    # A selection without any of the pairs counts as all of them.
    assert float(paired_mean(alike, torch.full((1, 4), PAIRS))) == pytest.approx(0.2)
