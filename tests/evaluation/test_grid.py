from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autotune.evaluation.grid import Column, save_grid, square


def _pictures(color: tuple[int, int, int], count: int = 2, side: int = 64) -> np.ndarray:
    return np.broadcast_to(np.array(color, dtype=np.uint8)[None, :, None, None], (count, 3, side, side))


def test_rows_are_prompts_and_columns_are_runs(tmp_path: Path) -> None:
    red, blue = (250, 0, 0), (0, 0, 250)
    columns = [Column("full run", _pictures(red), "20 steps"), Column("policy", _pictures(blue))]

    save_grid(columns, ["red apple", "blue cat"], tmp_path / "new" / "grid.png")

    with Image.open(tmp_path / "new" / "grid.png") as grid:
        pixels = np.asarray(grid).reshape(-1, 3)
        colors, counts = np.unique(pixels, axis=0, return_counts=True)
        found = dict(zip(map(tuple, colors.tolist()), counts.tolist(), strict=True))
        assert found[red] == found[blue] == 2 * 128 * 128  # Enlarged by two, nothing smoothed.
        assert np.asarray(grid)[-20, 200].tolist() == list(red)
        assert np.asarray(grid)[-20, -20].tolist() == list(blue)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["grid.png"]


def test_large_pictures_keep_their_size_and_long_captions_fit(tmp_path: Path) -> None:
    prompts = ["a long prompt " * 50, "unbreakable" * 40]
    save_grid([Column("policy " * 20, _pictures((9, 9, 9), side=200))], prompts, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        pixels = np.asarray(grid)
    assert (pixels == 9).all(axis=2).sum() >= 2 * 200 * 200


@pytest.mark.parametrize(
    ("columns", "prompts"),
    [
        ([], ["red apple"]),
        ([Column("a", _pictures((0, 0, 0)))], []),
        ([Column("a", _pictures((0, 0, 0), count=1))], ["red apple", "blue cat"]),
        ([Column("a", _pictures((0, 0, 0))), Column("b", _pictures((0, 0, 0), side=32))], ["red apple", "blue cat"]),
        ([Column("a", _pictures((0, 0, 0)).astype(float))], ["red apple", "blue cat"]),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_written(
    tmp_path: Path, columns: list[Column], prompts: list[str]
) -> None:
    with pytest.raises(ValueError, match="column"):
        save_grid(columns, prompts, tmp_path / "grid.png")
    assert not any(tmp_path.iterdir())


def test_pictures_of_one_run_fill_a_square_row_by_row_without_a_word(tmp_path: Path) -> None:
    shades = torch.tensor([10, 20, 30, 40, 50], dtype=torch.uint8)
    save_grid(square(shades[:, None, None, None].expand(5, 3, 128, 128)), None, tmp_path / "grid.png")
    with Image.open(tmp_path / "grid.png") as grid:
        pixels = np.asarray(grid)[..., 0]
    assert pixels.shape == (2 * 136 + 8, 3 * 136 + 8)
    middles = pixels[72::136, 72::136]
    assert middles.tolist() == [[10, 20, 30], [40, 50, 255]]
    assert all((pixels == shade).sum() == 128 * 128 for shade in shades.tolist())
