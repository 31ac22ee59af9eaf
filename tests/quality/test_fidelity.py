from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autotune.quality import measure_fidelity
from autotune.quality.fidelity import feature_distances, largest_psnr, psnr, ssim
from tests.quality.samples import SEEDS, features


def pictures(seed: int, n: int = 5, size: int = 16) -> Tensor:
    return torch.randint(256, (n, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def noisy(full: Tensor, strength: float, seed: int = 0) -> Tensor:
    noise = torch.randn(full.shape, generator=torch.Generator().manual_seed(seed))
    return (full + strength * noise).round().clamp(0, 255).byte()


def test_psnr_is_the_formula_pair_by_pair() -> None:
    a, b = pictures(0), noisy(pictures(0), 20)
    errors = np.square(a.numpy().astype(float) - b.numpy().astype(float)).mean((1, 2, 3))
    assert psnr(a, b).tolist() == pytest.approx((10 * np.log10(255**2 / errors)).tolist(), rel=1e-6)


def test_ssim_is_the_formula_on_pictures_of_one_shade() -> None:
    """Without variance only the comparison of means is left."""
    a, b = (torch.full((2, 3, 16, 16), shade, dtype=torch.uint8) for shade in (100, 150))
    c = (0.01 * 255) ** 2
    assert ssim(a, b).tolist() == pytest.approx([(2 * 100 * 150 + c) / (100**2 + 150**2 + c)] * 2, rel=1e-6)


def test_identical_pairs_have_the_best_of_all_finite_values() -> None:
    full = pictures(0)
    result = measure_fidelity(full.clone(), full, features=features(1, n=5), full_features=features(1, n=5))
    assert result.mean_psnr == pytest.approx(largest_psnr(3 * 16 * 16))
    assert result.mean_ssim == pytest.approx(1)
    assert result.identical_share == 1
    assert result.mean_feature_distance == 0


def test_one_value_off_by_one_is_as_near_as_different_pictures_get() -> None:
    full = pictures(0)
    full[0, 0, 0, 0] = 7
    near = full.clone()
    near[0, 0, 0, 0] = 8
    result = measure_fidelity(near, full)
    assert result.psnr.tolist() == pytest.approx([largest_psnr(768)] * 5)
    assert result.identical.tolist() == [False, True, True, True, True]
    assert largest_psnr(3 * 64 * 64) == pytest.approx(89.03, abs=0.01)


def test_one_identical_pair_leaves_the_mean_finite() -> None:
    full = pictures(0)
    mixed = torch.cat([full[:1], noisy(full[1:], 20)])
    result = measure_fidelity(mixed, full)
    assert math.isfinite(result.mean_psnr)
    assert result.identical_share == 0.2
    assert result.mean_feature_distance is None


@settings(max_examples=20, deadline=None)
@given(SEEDS, st.integers(11, 24), st.integers(1, 4))
def test_it_is_symmetric_and_bounded(seed: int, size: int, n: int) -> None:
    a, b = pictures(seed, n, size), pictures(seed + 1, n, size)
    one, two = measure_fidelity(a, b), measure_fidelity(b, a)
    torch.testing.assert_close(one.psnr, two.psnr)
    torch.testing.assert_close(one.ssim, two.ssim)
    assert one.psnr.shape == one.ssim.shape == one.identical.shape == (n,)
    assert (one.psnr >= 0).all()
    assert (one.ssim.abs() <= 1 + 1e-9).all()


def test_more_noise_is_less_fidelity() -> None:
    full = noisy(torch.full((4, 3, 32, 32), 128.0), 30, seed=1)
    results = [measure_fidelity(noisy(full, strength), full) for strength in (2, 5, 10, 20, 40)]
    for values in ([r.mean_psnr for r in results], [r.mean_ssim for r in results]):
        assert values == sorted(values, reverse=True)


def test_batches_do_not_change_values(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = pictures(0), pictures(1)
    whole = measure_fidelity(a, b)
    monkeypatch.setattr("autotune.quality.fidelity._VALUES", 2 * 768)
    parts = measure_fidelity(a, b)
    torch.testing.assert_close(parts.psnr, whole.psnr)
    torch.testing.assert_close(parts.ssim, whole.ssim)


@settings(max_examples=30, deadline=None)
@given(SEEDS, SEEDS, st.floats(0.1, 10))
def test_feature_distance_is_one_minus_the_cosine(one: int, two: int, length: float) -> None:
    x, y = features(one), features(two)
    expected = 1 - torch.nn.functional.cosine_similarity(x, y)
    torch.testing.assert_close(feature_distances(length * x, y), expected)
    assert torch.equal(feature_distances(x, x), torch.zeros(60, dtype=torch.float64))


def test_black_and_equal_features_are_no_special_case() -> None:
    black = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    result = measure_fidelity(black, black, features=torch.zeros(2, 4), full_features=torch.zeros(2, 4))
    assert result.mean_ssim == pytest.approx(1)
    assert result.mean_feature_distance == 0


def test_what_does_not_fit_is_refused() -> None:
    full = pictures(0)
    with pytest.raises(ValueError, match="pairs of pictures"):
        measure_fidelity(full[:3], full)
    with pytest.raises(ValueError, match="pairs of pictures"):
        measure_fidelity(full[:0], full[:0])
    with pytest.raises(ValueError, match="in uint8"):
        measure_fidelity(full.float(), full)
    with pytest.raises(ValueError, match="at least 11 pixels"):
        measure_fidelity(full[..., :10], full[..., :10])
    with pytest.raises(ValueError, match="give both or none"):
        measure_fidelity(full, full, features=torch.ones(5, 4))
    with pytest.raises(ValueError, match="5 pictures go with as many features, not 4"):
        measure_fidelity(full, full, features=torch.ones(4, 4), full_features=torch.ones(4, 4))
    with pytest.raises(ValueError, match="cannot be compared in pairs"):
        feature_distances(torch.ones(4, 4), torch.ones(5, 4))
    with pytest.raises(ValueError, match="not finite"):
        feature_distances(torch.full((4, 4), float("nan")), torch.ones(4, 4))
