from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from autotune.quality.kid import kid, kid_over_subsets, polynomial_kernel
from autotune.quality.mmd import squared_mmd
from tests.quality.samples import SEEDS, features, normal, rotation


@pytest.mark.parametrize("d", [1, 16, 200])
def test_it_is_torchmetrics_value(d: int) -> None:
    x, y = features(1, n=50, d=d), features(2, n=50, d=d)
    assert kid(x, y) == pytest.approx(float(poly_mmd(y, x)), rel=1e-6)


def test_subsets_are_torchmetrics_class_from_end_to_end() -> None:
    x, y = features(1, n=70), features(2, n=90)
    metric = KernelInceptionDistance(feature=torch.nn.Identity(), subsets=7, subset_size=20)
    metric.update(y, real=True)
    metric.update(x, real=False)
    torch.manual_seed(3)
    mean, std = metric.compute()
    ours = kid_over_subsets(x, y, subsets=7, size=20, seed=3)
    assert ours.mean == pytest.approx(float(mean), rel=1e-6)
    assert ours.std == pytest.approx(float(std), rel=1e-6)


def test_sets_of_different_sizes_follow_the_definition() -> None:
    x, y = features(1, n=6, d=3), features(2, n=9, d=3)

    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within = [
        sum(k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j) / (len(s) * (len(s) - 1))
        for s in (x, y)
    ]
    between = sum(k(a, b) for a in x for b in y) / (len(x) * len(y))
    assert kid(x, y) == pytest.approx(within[0] + within[1] - 2 * between, rel=1e-9)


def test_subsets_and_all_pairs_agree_on_average() -> None:
    x, y = features(1, n=100), features(2, n=120)
    subsets = kid_over_subsets(x, y, subsets=400, size=40)
    assert subsets.mean == pytest.approx(kid(x, y), abs=4 * subsets.std / 400**0.5)


def test_equal_distributions_score_zero_on_average_however_few() -> None:
    values = torch.tensor([kid(normal(2 * i, 8, 16), normal(2 * i + 1, 40, 16)) for i in range(300)])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 300**0.5
    assert (values < 0).any()


@settings(max_examples=30, deadline=None)
@given(SEEDS, SEEDS, st.integers(1, 12))
def test_it_is_symmetric_and_the_same_after_a_common_rotation(one: int, two: int, d: int) -> None:
    x, y, q = features(one, n=20, d=d), features(two, n=30, d=d), rotation(one, d)
    scale = float(polynomial_kernel(x, x).mean() + polynomial_kernel(y, y).mean())
    assert kid(y, x) == pytest.approx(kid(x, y), abs=1e-9 * scale)
    assert kid(x @ q, y @ q) == pytest.approx(kid(x, y), abs=1e-9 * scale)


@settings(max_examples=30, deadline=None)
@given(SEEDS, SEEDS, st.integers(1, 12))
def test_the_biased_form_is_not_negative_and_zero_for_identical_sets(one: int, two: int, d: int) -> None:
    x, y = features(one, n=20, d=d), features(two, n=30, d=d)
    scale = float(polynomial_kernel(x, x).mean() + polynomial_kernel(y, y).mean())
    assert float(squared_mmd(x, x, polynomial_kernel, biased=True)) == pytest.approx(0, abs=1e-9 * scale)
    assert float(squared_mmd(x, y, polynomial_kernel, biased=True)) > -1e-9 * scale


def test_constant_features_are_apart_by_the_kernel_of_their_points() -> None:
    zeros, ones = torch.zeros(5, 4), torch.ones(6, 4)
    assert kid(ones, zeros) == pytest.approx(8 + 1 - 2)
    assert kid(ones, ones) == 0


def test_bad_features_are_refused() -> None:
    with pytest.raises(ValueError, match="N >= 2"):
        kid(torch.zeros(1, 3), torch.zeros(4, 3))
    with pytest.raises(ValueError, match="3 and of 4 dimensions"):
        kid(torch.zeros(5, 3), torch.zeros(5, 4))
    with pytest.raises(ValueError, match="15 of 15 values of the features are not finite"):
        kid(torch.full((5, 3), float("nan")), torch.zeros(5, 3))
    with pytest.raises(ValueError, match="N >= 10"):
        kid_over_subsets(torch.zeros(9, 3), torch.zeros(50, 3), size=10)
    with pytest.raises(ValueError, match="0 of 10"):
        kid_over_subsets(torch.zeros(20, 3), torch.zeros(50, 3), subsets=0, size=10)
