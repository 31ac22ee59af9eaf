"""Crops: the same places for all candidates, and what a reduced picture hides is seen in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from autotune.quality.crops import Crops
from autotune.quality.wavelets import drift, haar_errors, textures
from studies.proxy.spoiling import blurred, grainy

SIDE = 224


def numbered(count: int, height: int = 40, width: int = 50) -> Tensor:
    """Pictures whose values tell row, top and left: (count, 3, height, width) uint8."""
    rows = torch.arange(count).view(-1, 1, 1).expand(count, height, width)
    tops = torch.arange(height).view(1, -1, 1).expand(count, height, width)
    lefts = torch.arange(width).view(1, 1, -1).expand(count, height, width)
    return torch.stack([rows, tops, lefts], 1).to(torch.uint8)


@given(st.integers(0, 500), st.integers(16, 90), st.integers(16, 90))
def test_crops_lie_inside(row: int, height: int, width: int) -> None:
    for top, left in Crops(16, count=3).places(row, height, width):
        assert 0 <= top <= height - 16 and 0 <= left <= width - 16


@given(st.integers(1, 7))
def test_batches_do_not_matter(size: int) -> None:
    crops, pictures = Crops(16), numbered(7)
    batches = [crops.of(pictures[start : start + size], start) for start in range(0, 7, size)]
    parted = torch.cat([batch.unflatten(0, (crops.count, -1)) for batch in batches], 1).flatten(0, 1)
    assert torch.equal(parted, crops.of(pictures))


def test_a_crop_is_a_part_of_its_own_picture() -> None:
    crops = Crops(16, count=2)
    for index, crop in enumerate(crops.of(numbered(5))):
        row, number = index % 5, index // 5
        assert (int(crop[0, 0, 0]), int(crop[1, 0, 0]), int(crop[2, 0, 0])) == (
            row,
            *crops.places(row, 40, 50)[number],
        )


def test_another_seed_draws_other_places() -> None:
    assert Crops(16).places(0, 400, 500) != Crops(16, seed=1).places(0, 400, 500)


@pytest.mark.parametrize(
    ("height", "width", "needed"), [(224, 224, False), (64, 64, False), (225, 224, True), (1024, 1024, True)]
)
def test_only_pictures_that_are_reduced_need_crops(height: int, width: int, needed: bool) -> None:
    assert Crops(SIDE).needed(height, width) is needed


def test_crops_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Crops(SIDE).of(numbered(1))


@pytest.mark.parametrize("spoil", [lambda x: grainy(x, 3), lambda x: blurred(x, 0.6)], ids=["grain", "blur"])
def test_what_vanishes_in_a_reduced_picture_shows_in_crops(spoil: Callable[[Tensor], Tensor]) -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = F.interpolate(torch.rand(2, 3, 64, 64, generator=draw), (1024, 1024), mode="nearest")
    hair = 6 * torch.randn(2, 3, 1024, 1024, generator=draw)
    pictures = (60 + 120 * shapes + hair).round().to(torch.uint8)
    spoiled = spoil(pictures)

    def reduced(values: Tensor) -> Tensor:
        return F.interpolate(values.float(), (SIDE, SIDE), mode="bicubic", antialias=True).round().to(torch.uint8)

    crops = Crops(SIDE)
    whole = float(haar_errors(reduced(pictures), reduced(spoiled)).mean())
    parts = float(haar_errors(crops.of(pictures), crops.of(spoiled)).mean())
    assert parts > 3 * whole
    # Textures need no crops: they are those of the whole picture at its own size.
    rows = torch.arange(2)[None]
    seen = float(drift(textures(spoiled) - textures(pictures), rows))
    assert seen > 2 * float(drift(textures(reduced(spoiled)) - textures(reduced(pictures)), rows))
