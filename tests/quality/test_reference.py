from __future__ import annotations

from pathlib import Path

import pytest
import torch

import autotune
from autotune.core.errors import InputError
from autotune.quality import Gaussian, Reference, fit
from autotune.quality.tensors import write_tensors
from tests.quality.samples import features

SHIPPED = Path(autotune.__file__).parent / "models/emoji-clip/reference/pictures.safetensors"


@pytest.mark.parametrize("shrink", [False, True])
def test_it_holds_the_statistics_of_all_and_the_features(shrink: bool) -> None:
    x = features(1)
    reference = Reference.of(x, shrink=shrink)
    assert torch.equal(reference.gaussian.covariance, fit(x, shrink=shrink).covariance)
    assert reference.gaussian.n == 60
    assert torch.equal(reference.sample(), x.float())


def test_too_many_features_are_thinned_out_at_random_but_always_alike() -> None:
    x = features(1, n=500)
    reference = Reference.of(x, keep=100)
    kept = reference.sample()
    rows = [int((x.float() == row).all(1).nonzero()) for row in kept]
    assert len(set(rows)) == 100
    assert max(rows) > 400
    assert rows == sorted(rows)
    assert reference.gaussian.n == 500
    assert torch.equal(kept, Reference.of(x, keep=100).sample())
    assert not torch.equal(kept, Reference.of(x, keep=100, seed=1).sample())


@pytest.mark.parametrize("with_features", [True, False])
def test_it_survives_saving(tmp_path: Path, with_features: bool) -> None:
    path = tmp_path / "reference.safetensors"
    reference = Reference(fit(features(1)), features(1).float() if with_features else None)
    reference.save(path)
    loaded = Reference.load(path)
    assert torch.equal(loaded.gaussian.covariance, reference.gaussian.covariance)
    assert loaded.gaussian.n == 60
    assert (loaded.features is None) == (not with_features)
    if with_features:
        assert torch.equal(loaded.sample(), reference.sample())
    assert torch.equal(Gaussian.load(path).mean, reference.gaussian.mean)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_the_shipped_statistics_still_load() -> None:
    reference = Reference.load(SHIPPED)
    assert reference.gaussian.mean.shape == (128,)
    assert reference.features is None
    with pytest.raises(InputError, match="holds statistics alone"):
        reference.sample()


def test_unusable_files_are_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "reference.safetensors"
    with pytest.raises(InputError, match="Cannot read reference statistics"):
        Reference.load(path)
    gaussian = fit(features(1))
    tensors = {"mean": gaussian.mean, "covariance": gaussian.covariance, "features": torch.zeros(4, 3)}
    write_tensors(path, tensors, {"n": "60"})
    with pytest.raises(InputError, match="no usable reference features: A Gaussian of 8 dimensions"):
        Reference.load(path)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="two or more features of as many"):
        Reference(fit(features(1)), torch.zeros(1, 8))
    with pytest.raises(ValueError, match="16 of 16 values of the reference features are not finite"):
        Reference(fit(features(1)), torch.full((2, 8), float("nan")))
    with pytest.raises(ValueError, match="N >= 2"):
        Reference.of(torch.zeros(1, 8))
