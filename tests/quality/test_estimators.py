from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality import Reference, estimator, fit, frechet_distance
from autotune.quality.cmmd import cmmd, cmmd_unbiased
from autotune.quality.estimators import NAMES, leading_directions
from autotune.quality.extrapolation import Anchor, extrapolate
from autotune.quality.kid import kid
from tests.quality.samples import SEEDS, features, normal, rotation

D = 40
REAL = features(1, n=300, d=D)
REFERENCE = Reference.of(REAL)
PICTURES = features(2, n=64, d=D)

everything = pytest.mark.parametrize("name", NAMES)


@everything
def test_names_lead_to_their_estimators(name: str) -> None:
    assert estimator(name).name == name
    assert isinstance(estimator(name)(PICTURES, REFERENCE), float)


def test_each_is_what_its_name_says() -> None:
    gaussian, sample = REFERENCE.gaussian, REFERENCE.sample()
    basis = leading_directions(gaussian, 16)
    expected = {
        "frechet": frechet_distance(fit(PICTURES, shrink=False), gaussian),
        "frechet-shrunk": frechet_distance(fit(PICTURES), gaussian),
        "frechet-subspace-16": frechet_distance(fit(PICTURES @ basis, shrink=False), gaussian.project(basis)),
        "frechet-shrunk-subspace-16": frechet_distance(fit(PICTURES @ basis), gaussian.project(basis)),
        "frechet-infinity": extrapolate(PICTURES, Anchor(gaussian)).value,
        "frechet-subspace-16-infinity": extrapolate(PICTURES @ basis, Anchor(gaussian.project(basis))).value,
        "kid": kid(PICTURES, sample),
        "cmmd": cmmd(PICTURES, sample),
        "cmmd-unbiased": cmmd_unbiased(PICTURES, sample),
    }
    assert {name: estimator(name)(PICTURES, REFERENCE) for name in expected} == pytest.approx(expected, rel=1e-9)


@everything
def test_selections_of_rows_are_measured_as_if_they_were_all(name: str) -> None:
    measure = estimator(name).against(REFERENCE)
    rows = torch.stack([torch.randperm(64, generator=torch.Generator().manual_seed(seed))[:32] for seed in range(3)])
    together = measure.of_rows(measure.prepare(PICTURES), rows)
    assert together.tolist() == pytest.approx([measure(PICTURES[part]) for part in rows], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["kid", "cmmd-unbiased"])
def test_a_row_selected_twice_does_not_count_as_resemblance(name: str) -> None:
    """A bootstrap repeats rows; without care the unbiased estimates would rise with every repetition."""
    measure = estimator(name).against(REFERENCE)
    rows = torch.randint(64, (2000, 64), generator=torch.Generator().manual_seed(0))
    replicates = measure.of_rows(measure.prepare(PICTURES), rows)
    assert float(replicates.mean()) == pytest.approx(measure(PICTURES), abs=4 * float(replicates.std()) / 2000**0.5)


@everything
def test_a_prepared_reference_gives_the_same_values(name: str) -> None:
    measure = estimator(name).against(REFERENCE)
    for seed in (3, 4):
        assert measure(features(seed, d=D)) == estimator(name)(features(seed, d=D), REFERENCE)


@everything
@pytest.mark.parametrize("n", [8, 32])
def test_fewer_pictures_than_dimensions_give_numbers(name: str, n: int) -> None:
    few = Reference.of(REAL[:20])
    for x in (PICTURES[:n], REAL[:n], torch.ones(n, D), PICTURES[:n].float()):
        value = estimator(name)(x, few)
        assert math.isfinite(value)
        assert value >= -1e-9 or estimator(name).signed


@everything
def test_constant_references_give_numbers(name: str) -> None:
    constant = Reference.of(torch.ones(20, D))
    apart = estimator(name)(PICTURES, constant)
    assert math.isfinite(apart)
    assert estimator(name)(torch.ones(9, D), constant) == pytest.approx(0, abs=1e-12)
    assert apart > 0


@pytest.mark.parametrize("name", ["frechet", "frechet-subspace-32", "frechet-subspace-99", "cmmd"])
def test_identical_sets_are_at_distance_zero_in_the_biased_forms(name: str) -> None:
    assert estimator(name)(REAL, REFERENCE) == pytest.approx(0, abs=1e-6 * float(REAL.var(0).sum()))


@settings(max_examples=5, deadline=None)
@given(SEEDS, st.integers(2, 20))
@everything
def test_none_depends_on_a_common_rotation(name: str, seed: int, d: int) -> None:
    x, y, q = features(seed, n=40, d=d), features(seed + 1, n=80, d=d), rotation(seed, d)
    before = estimator(name)(x, Reference.of(y))
    after = estimator(name)(x @ q, Reference.of(y @ q))
    # The reference keeps its features in float32.
    scale = float(estimator("frechet")(x, Reference.of(y))) + float(x.var(0).sum() + y.var(0).sum())
    if name == "kid":
        scale = float(((x @ x.T).abs().max() + (y @ y.T).abs().max()) / d + 1) ** 3
    assert after == pytest.approx(before, abs=1e-5 * scale + 1e-4)


@everything
@pytest.mark.parametrize("n", [32, 128])
def test_a_growing_shift_is_a_growing_distance(name: str, n: int) -> None:
    """Unit features, as CLIP's, that drift away from the reference's."""
    centre, away = torch.eye(D, dtype=torch.float64)[:2]
    # The reference varies most along the drift, or few directions would not show it.
    spread = 0.1 + 0.1 * away

    def unit(noise: Tensor, shift: float) -> Tensor:
        return torch.nn.functional.normalize(spread * noise + centre + shift * away, dim=1)

    measure = estimator(name).against(Reference.of(unit(normal(1, 500, D), 0)))
    values = [measure(unit(normal(2, n, D), shift)) for shift in (0.2, 0.4, 0.7, 1.1)]
    assert all(nearer < farther for nearer, farther in itertools.pairwise(values))


@pytest.mark.parametrize(
    "name",
    ["fid", "", "frechet-subspace-0", "frechet-subspace-", "frechet-shrunk-infinity", "kid-subspace-3", "frechet "],
)
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(InputError, match="there is no distance called"):
        estimator(name)


def test_a_misspelt_name_is_answered_with_the_right_one() -> None:
    with pytest.raises(InputError, match="did you mean 'cmmd-unbiased'"):
        estimator("cmmd-unbiassed")


@everything
def test_features_of_another_network_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="dimensions come from different networks"):
        estimator(name)(features(2, n=64, d=D - 1), REFERENCE)


@everything
def test_statistics_alone_serve_those_that_need_no_features(name: str) -> None:
    bare = Reference(REFERENCE.gaussian)
    if estimator(name).needs_features:
        with pytest.raises(InputError, match="kernel distances need features"):
            estimator(name)(PICTURES, bare)
    else:
        assert estimator(name)(PICTURES, bare) == estimator(name)(PICTURES, REFERENCE)
