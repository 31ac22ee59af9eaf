"""Wavelets: exact on hand-made pictures, blind to nothing that people see at a picture's own size."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from autotune.quality.frechet import Gaussian, fit
from autotune.quality.wavelets import band_distances, by_band, detail_bands, drift, from_mean, haar_errors, textures
from studies.proxy.spoiling import FINE_LADDERS, grainy


def scenes(count: int = 6, side: int = 64) -> Tensor:
    """Plain ground, a gradient, edges and a few small parts: (count, 3, side, side) uint8."""
    draw = torch.Generator().manual_seed(0)
    pictures = torch.linspace(60, 180, side).expand(count, 3, side, side).clone()
    for picture in pictures:
        for size in (side // 3, side // 6, 5, 4, 3, 5, 4, 5):
            top, left = torch.randint(2, side - size - 2, (2,), generator=draw).tolist()
            colour = torch.rand(3, generator=draw) * 255
            picture[:, top : top + size, left : left + size] = colour[:, None, None]
    return pictures.round().to(torch.uint8)


def spread(count: int, seed: int) -> Tensor:
    """Pictures (count, 3, 16, 16) uint8 of noise, each of another strength."""
    draw = torch.Generator().manual_seed(seed)
    strength = torch.linspace(2, 100, count)[:, None, None, None]
    return (128 + strength * (torch.rand(count, 3, 16, 16, generator=draw) - 0.5)).to(torch.uint8)


def moved(pictures: Tensor, others: Tensor) -> float:
    """Drift between two sets of pictures."""
    return float(drift(textures(others) - textures(pictures), torch.arange(len(pictures))[None]))


def structure(pictures: Tensor, others: Tensor) -> float:
    return float(haar_errors(pictures, others).mean())


ERRORS = {"structure": structure, "drift": moved}


def test_a_checkerboard_has_nothing_but_the_finest_diagonal() -> None:
    board = torch.tensor([[100, 90], [90, 100]], dtype=torch.uint8).repeat(4, 4).expand(1, 3, 8, 8)
    across, down, diagonal, *coarser = detail_bands(board)
    # Gray: nothing in the colour differences.
    assert torch.allclose(diagonal[:, 0], torch.tensor(10.0))
    assert diagonal[:, 1:].abs().max() < 1e-4
    assert max(band.abs().max() for band in (across, down, *coarser)) < 1e-4


@given(st.integers(8, 24), st.integers(8, 24), st.integers(0, 1000))
def test_of_a_constant_picture_there_is_no_texture(height: int, width: int, level: int) -> None:
    plain = torch.full((1, 3, height, width), level % 256, dtype=torch.uint8)
    assert textures(plain).max() < 1e-4


@given(st.integers(0, 1000))
def test_textures_are_shares(seed: int) -> None:
    noise = torch.randint(0, 256, (2, 3, 17, 16), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    found = textures(noise)
    assert found.shape == (2, 27)
    assert found.min() >= 0 and found.max() < 1


def test_pictures_too_small_for_the_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="3 levels need 8 pixels a side"):
        textures(torch.zeros(1, 3, 7, 64, dtype=torch.uint8))


@pytest.mark.parametrize("kind", ERRORS)
def test_equal_pictures_have_no_error(kind: str) -> None:
    assert ERRORS[kind](scenes(), scenes()) == 0


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_are_symmetric(kind: str) -> None:
    one, other = scenes(), grainy(scenes(), 6)
    assert ERRORS[kind](one, other) == pytest.approx(ERRORS[kind](other, one))


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("ladder", FINE_LADDERS)
def test_errors_rise_with_what_people_see(kind: str, ladder: str) -> None:
    if kind == "drift" and ladder == "lost parts":
        pytest.skip("what is lost in one picture is no change of texture: pairs see it")
    spoil, strengths = FINE_LADDERS[ladder]
    errors = [ERRORS[kind](scenes(), spoil(scenes(), strength)) for strength in strengths]
    assert all(slight < strong for slight, strong in itertools.pairwise((0.0, *errors))), errors


def test_other_pictures_as_clean_hardly_drift() -> None:
    pictures = scenes(64)
    other = pictures.roll(1, 0)
    assert moved(pictures, other) < 1e-6 < 0.01 < structure(pictures, other)


def test_drift_is_of_the_rows_that_are_chosen() -> None:
    changes = textures(grainy(scenes(4), 4)) - textures(scenes(4))
    rows = torch.tensor([[0, 0, 1], [2, 3, 3]])
    expected = [float(changes[each].mean(0).abs().mean()) for each in rows]
    assert drift(changes, rows).tolist() == pytest.approx(expected)


def test_pairs_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="pairs of pictures"):
        haar_errors(scenes(2), scenes(3))


def test_the_distance_by_band_of_the_reference_itself_is_nothing() -> None:
    found = textures(scenes(32))
    assert by_band(fit(found, shrink=False))(found) == pytest.approx(0, abs=1e-9)


def test_the_distance_by_band_grows_with_grain() -> None:
    measure = by_band(fit(textures(scenes(32)), shrink=False))
    distances = [measure(textures(grainy(scenes(32), strength))) for strength in (1, 2, 4, 8)]
    assert all(slight < strong for slight, strong in itertools.pairwise(distances)), distances


def test_the_distance_by_band_is_of_the_rows_that_are_chosen() -> None:
    found = textures(scenes(16))
    measure = by_band(fit(found, shrink=False))
    rows = torch.tensor([[0, 1, 2, 2], [5, 6, 7, 8]])
    expected = [measure(found[each]) for each in rows]
    assert measure.of_rows(measure.prepare(found), rows).tolist() == pytest.approx(expected)


_SHARES = st.lists(st.floats(0, 1), min_size=12, max_size=12)


@given(_SHARES, _SHARES, st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_mean_textures_come_no_nearer_to_real_ones_than_they_drift(
    ours: list[float], theirs: list[float], real: list[float]
) -> None:
    made, exact = (torch.tensor(shares, dtype=torch.float64).view(4, 3) for shares in (ours, theirs))
    measure = from_mean(Gaussian(torch.tensor(real, dtype=torch.float64), torch.eye(3).double(), 9))
    rows = torch.arange(4)[None]
    gained = measure.of_rows(measure.prepare(exact), rows) - measure.of_rows(measure.prepare(made), rows)
    assert gained <= drift(made - exact, rows) + 1e-12


def test_mean_textures_are_those_of_the_rows_that_are_chosen() -> None:
    values = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.2, 0.1], [0.5, 0.5, 0.5]], dtype=torch.float64)
    measure = from_mean(Gaussian(torch.full((3,), 0.2, dtype=torch.float64), torch.eye(3).double(), 9))
    found = measure.of_rows(measure.prepare(values), torch.tensor([[0, 1], [2, 2]]))
    torch.testing.assert_close(found, torch.tensor([0.0, 0.3], dtype=torch.float64))
    with pytest.raises(ValueError, match="cannot be compared"):
        measure.prepare(values[:, :2])


def test_textures_of_other_levels_are_refused() -> None:
    measure = by_band(fit(textures(scenes(16))))
    with pytest.raises(ValueError, match="18 numbers cannot be compared with a reference's 27"):
        measure(textures(scenes(16), levels=2))


def test_distances_of_pairs_are_those_of_their_gaussians() -> None:
    ours, theirs = textures(spread(40, 0)), textures(spread(40, 1) // 2)
    pairs = torch.cat([ours, theirs], 1)
    rows = torch.arange(40)[None]
    expected = by_band(fit(theirs, shrink=False))(ours)
    assert float(band_distances(pairs, rows)) == pytest.approx(expected, rel=1e-6)
    # What has no partner plays no part, and a selection without any counts as all.
    more = torch.cat([rows, torch.arange(40, 50)[None]], 1)
    assert torch.allclose(band_distances(pairs, more), band_distances(pairs, rows))
    assert torch.allclose(band_distances(pairs, torch.full((1, 5), 60)), band_distances(pairs, rows))


def test_distances_of_selected_pairs() -> None:
    pairs = torch.cat([textures(spread(12, 0)), textures(spread(12, 1) // 2)], 1)
    selected = torch.tensor([[0, 0, 3, 5, 7, 11, 2, 2]])
    alone = band_distances(pairs[selected[0]], torch.arange(8)[None])
    assert torch.allclose(band_distances(pairs, selected), alone)
    assert float(band_distances(torch.cat([pairs[:, :27], pairs[:, :27]], 1), selected)) == pytest.approx(0, abs=1e-9)
    assert band_distances(torch.zeros(12), selected).tolist() == [0]
