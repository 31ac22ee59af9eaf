from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autotune.core.errors import InputError
from autotune.quality import Gaussian, fit, frechet_distance
from autotune.quality.frechet import moments
from tests.quality.samples import SEEDS, features, rotation

DIMENSIONS = st.integers(1, 12)


@pytest.mark.parametrize("d", [1, 8, 40])
def test_distance_agrees_with_scipys_matrix_root(d: int) -> None:
    x, y = features(1, n=200, d=d), features(2, n=150, d=d)
    mean_x, mean_y = x.numpy().mean(0), y.numpy().mean(0)
    cov_x, cov_y = (np.atleast_2d(np.cov(z.numpy(), rowvar=False)) for z in (x, y))
    root = scipy.linalg.sqrtm(cov_x @ cov_y)
    expected = np.sum((mean_x - mean_y) ** 2) + np.trace(cov_x + cov_y - 2 * root).real
    assert frechet_distance(fit(x, shrink=False), fit(y, shrink=False)) == pytest.approx(expected, rel=1e-6)


def test_distance_of_two_points_apart_is_their_squared_distance() -> None:
    a, b = (Gaussian(torch.tensor(m).double(), torch.zeros(2, 2).double(), 1) for m in ([0.0, 0.0], [3.0, 4.0]))
    assert frechet_distance(a, b) == pytest.approx(25)


@settings(max_examples=50, deadline=None)
@given(SEEDS, SEEDS, DIMENSIONS, st.booleans())
def test_distance_is_symmetric_not_negative_and_zero_only_with_itself(one: int, two: int, d: int, shrink: bool) -> None:
    a, b = fit(features(one, d=d), shrink=shrink), fit(features(two, n=40, d=d), shrink=shrink)
    scale = float(a.covariance.trace() + b.covariance.trace())
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-6, abs=1e-6 * scale)
    assert frechet_distance(a, b) > 1e-6 * scale
    assert 0 <= frechet_distance(a, a) < 1e-9 * scale


@settings(max_examples=50, deadline=None)
@given(SEEDS, SEEDS, DIMENSIONS, st.booleans())
def test_distance_is_the_same_after_a_common_rotation(seed: int, turn: int, d: int, shrink: bool) -> None:
    x, y, q = features(seed, d=d), features(seed + 1, n=40, d=d), rotation(turn, d)
    before = frechet_distance(fit(x, shrink=shrink), fit(y, shrink=shrink))
    after = frechet_distance(fit(x @ q, shrink=shrink), fit(y @ q, shrink=shrink))
    assert after == pytest.approx(before, rel=1e-6)


def test_fewer_rows_than_dimensions_stay_finite_and_zero_with_themselves() -> None:
    few = fit(features(3, n=5, d=30), shrink=False)
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-4 * float(few.covariance.trace()))


def ledoit_wolf_share(x: np.ndarray) -> float:
    """The shrinkage by the definition's explicit sum over rows (Ledoit and Wolf 2004, lemma 3.3 and 3.4)."""
    n, d = x.shape
    x = x - x.mean(0)
    s = x.T @ x / n
    m = np.trace(s) / d
    d2 = np.sum((s - m * np.eye(d)) ** 2) / d
    b2 = sum(np.sum((np.outer(row, row) - s) ** 2) / d for row in x) / n**2
    return float(min(b2, d2) / d2)


@pytest.mark.parametrize("n", [5, 20, 2000])
def test_shrinkage_is_ledoit_and_wolfs(n: int) -> None:
    x = features(4, n=n)
    share = ledoit_wolf_share(x.numpy())
    sample = fit(x, shrink=False).covariance
    target = sample.trace() / 8 * torch.eye(8, dtype=torch.float64)
    torch.testing.assert_close(fit(x).covariance, (1 - share) * sample + share * target)
    assert (share > 0.1) == (n < 100)


def test_shrinkage_brings_a_covariance_of_few_rows_nearer_to_the_truth() -> None:
    mixing = torch.randn(20, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.randn(50, 25, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64) @ mixing
    errors = [float((moments(rows, shrink=s)[1] - mixing.T @ mixing).square().sum()) for s in (True, False)]
    assert errors[0] < 0.9 * errors[1]


def test_moments_of_a_batch_are_those_of_its_members() -> None:
    batch = torch.stack([features(seed) for seed in range(6)]).view(2, 3, 60, 8)
    means, covariances = moments(batch)
    alone = fit(batch[1, 2])
    torch.testing.assert_close(means[1, 2], alone.mean)
    torch.testing.assert_close(covariances[1, 2], alone.covariance)


def test_constant_features_have_zero_covariance() -> None:
    assert torch.equal(fit(torch.ones(5, 3)).covariance, torch.zeros(3, 3, dtype=torch.float64))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_named(value: float) -> None:
    x = features(0)
    x[3, 2] = value
    with pytest.raises(ValueError, match="1 of 480 values of the features are not finite"):
        fit(x)
    with pytest.raises(ValueError, match="of the covariance are not finite"):
        Gaussian(torch.zeros(2), torch.tensor([[1, value], [0, 1]]), 3)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="N >= 2"):
        fit(torch.zeros(1, 3))
    with pytest.raises(ValueError, match=r"covariance of shape \(D, D\)"):
        Gaussian(torch.zeros(2), torch.zeros(3, 3), 3)
    with pytest.raises(ValueError, match="8 and of 5 dimensions"):
        frechet_distance(fit(features(0)), fit(features(0, d=5)))


def test_statistics_survive_saving(tmp_path: Path) -> None:
    gaussian, path = fit(features(0)), tmp_path / "reference.safetensors"
    path.write_text("an older file")
    gaussian.save(path)
    loaded = Gaussian.load(path)
    assert loaded.n == 60
    assert torch.equal(loaded.mean, gaussian.mean)
    assert torch.equal(loaded.covariance, gaussian.covariance)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reference.safetensors"
    fit(features(0)).save(path)
    before = path.read_bytes()

    def full_disk(source: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="disk full"):
        fit(features(1)).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("content", [None, b"", b"text", b"\x08\0\0\0\0\0\0\0{}      "])
def test_unusable_statistics_are_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "reference.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="reference statistics"):
        Gaussian.load(path)
