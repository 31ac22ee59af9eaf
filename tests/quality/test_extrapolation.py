from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from autotune.quality.extrapolation import Anchor, Extrapolation, extrapolate
from autotune.quality.frechet import Gaussian, fit, frechet_distance
from tests.quality.samples import SEEDS, features, normal, rotation


def like_a_spectrum(seed: int, n: int, d: int) -> Tensor:
    return normal(seed, n, d) * spectrum(d).sqrt()


def spectrum(d: int) -> Tensor:
    """Variances that fall as those of a network's features do, with sum one."""
    falling = 1 / torch.arange(1, d + 1, dtype=torch.float64)
    return falling / falling.sum()


def truth(d: int) -> Anchor:
    return Anchor(Gaussian(torch.zeros(d, dtype=torch.float64), spectrum(d).diag(), 10**6))


@pytest.mark.parametrize(("n", "d"), [(200, 1), (200, 30), (20, 30), (2, 30), (30, 30), (31, 30)])
def test_the_smaller_product_gives_the_same_distance(n: int, d: int) -> None:
    x, reference = features(1, n=n, d=d), fit(features(2, n=100, d=d), shrink=False)
    assert Anchor(reference).distance(x) == pytest.approx(frechet_distance(fit(x, shrink=False), reference), rel=1e-6)


@pytest.mark.parametrize(("n", "d"), [(200, 1), (200, 30), (40, 30)])
def test_distance_is_torchmetrics_value(n: int, d: int) -> None:
    x, y = features(1, n=n, d=d), features(2, n=150, d=d)
    stats = [(z.mean(0), z.T.cov().reshape(d, d)) for z in (y, x)]
    expected = float(_compute_fid(*stats[0], *stats[1]))
    assert Anchor(fit(y, shrink=False)).distance(x) == pytest.approx(expected, rel=1e-6)


@settings(max_examples=20, deadline=None)
@given(SEEDS, SEEDS, st.integers(1, 20), st.integers(8, 30))
def test_both_are_the_same_after_a_common_rotation(one: int, two: int, d: int, n: int) -> None:
    x, y, q = features(one, n=n, d=d), features(two, n=40, d=d), rotation(one, d)
    plain, turned = Anchor(fit(y, shrink=False)), Anchor(fit(y @ q, shrink=False))
    scale = float(x.var(0).sum() + y.var(0).sum() + (x.mean(0) - y.mean(0)).square().sum())
    assert turned.distance(x @ q) == pytest.approx(plain.distance(x), abs=1e-6 * scale)
    assert extrapolate(x @ q, turned).value == pytest.approx(extrapolate(x, plain).value, abs=1e-5 * scale)


def test_subsets_are_measured_as_if_they_were_alone() -> None:
    x, anchor = features(1, n=50), Anchor(fit(features(2)))
    subsets = torch.stack([torch.randperm(50, generator=torch.Generator().manual_seed(i))[:5] for i in range(9)])
    expected = [anchor.distance(x[rows]) for rows in subsets]
    assert anchor.subset_distances(x, subsets).tolist() == pytest.approx(expected)


def test_batches_do_not_change_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    x, anchor = features(1, n=50), Anchor(fit(features(2)))
    whole = extrapolate(x, anchor)
    monkeypatch.setattr("autotune.quality.extrapolation._VALUES", 1)
    assert extrapolate(x, anchor).value == pytest.approx(whole.value)


@pytest.mark.parametrize(("n", "left"), [(64, 0.4), (128, 0.2), (256, 0.2)])
def test_most_of_the_bias_of_few_pictures_goes(n: int, left: float) -> None:
    d = 32
    anchor = truth(d)
    samples = [like_a_spectrum(seed, n, d) for seed in range(20)]
    plain = torch.tensor([anchor.distance(x) for x in samples])
    extrapolated = torch.tensor([extrapolate(x, anchor).value for x in samples])
    assert abs(float(extrapolated.mean())) < left * float(plain.mean())


def test_pictures_of_less_variety_lose_the_advantage_that_few_of_them_have() -> None:
    """The heart of Chong and Forsyth: at equal N the plain distance prefers the narrow, wrong pictures."""
    d, n = 32, 64
    anchor = truth(d)
    right = [like_a_spectrum(seed, n, d) for seed in range(20)]
    plain, extrapolated = (
        [sum(measure(variety * x) for x in right) / 20 for variety in (1, 0.9)]
        for measure in (anchor.distance, lambda x: extrapolate(x, anchor).value)
    )
    assert plain[1] < plain[0]
    assert extrapolated[0] < extrapolated[1]


def test_the_line_is_that_of_least_squares_over_one_by_n() -> None:
    result = extrapolate(features(1, n=100), Anchor(fit(features(2))))
    assert result.sizes == (50, 57, 67, 80, 100)
    design = torch.tensor([[1 / size, 1.0] for size in result.sizes], dtype=torch.float64)
    solution = torch.linalg.lstsq(design, torch.tensor(result.distances, dtype=torch.float64)[:, None]).solution
    assert (result.slope, result.value) == pytest.approx(tuple(solution[:, 0].tolist()))
    assert result.slope > 0


def test_it_follows_from_the_seed_alone() -> None:
    x, anchor = features(1, n=40), Anchor(fit(features(2)))
    torch.manual_seed(1)
    first = extrapolate(x, anchor, seed=5)
    torch.manual_seed(2)
    assert extrapolate(x, anchor, seed=5) == first
    assert extrapolate(x, anchor, seed=6) != first


@pytest.mark.parametrize("n", [8, 9, 32])
def test_fewer_rows_than_dimensions_and_constant_rows_stay_finite(n: int) -> None:
    anchor = Anchor(fit(features(2, n=20, d=40), shrink=False))
    assert torch.tensor(extrapolate(features(1, n=n, d=40), anchor).value).isfinite()
    constant = extrapolate(torch.ones(n, 40), anchor)
    assert isinstance(constant, Extrapolation)
    assert constant.value == pytest.approx(anchor.distance(torch.ones(n, 40)))
    assert constant.slope == pytest.approx(0, abs=1e-9)


def test_bad_features_are_refused() -> None:
    anchor = Anchor(fit(features(2)))
    with pytest.raises(ValueError, match="N >= 8"):
        extrapolate(torch.zeros(7, 8), anchor)
    with pytest.raises(ValueError, match="5 and a reference of 8 dimensions"):
        anchor.distance(torch.zeros(9, 5))
    with pytest.raises(ValueError, match="not finite"):
        anchor.distance(torch.full((9, 8), float("nan")))
