from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from autotune.errors import InputError
from autotune.quality import fit
from autotune.search.identity import identity
from autotune.search.references import read_reference
from autotune.search.setup import choose

from .conftest import ReadingScorer


def make_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for index in range(count):
        row = [(100 + 20 * ((index + column) % 5),) * 3 for column in range(8)]
        picture = Image.new("RGB", (8, 8))
        picture.putdata(row * 8)
        picture.save(folder / f"{index}.png")


def test_a_folder_of_pictures_becomes_statistics(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 5)
    reference = read_reference(tmp_path / "pictures", ReadingScorer(), 8, 8)
    rows = torch.tensor([[100 + 20 * ((index + column) % 5) for column in range(8)] for index in range(5)])
    expected = fit(torch.nn.functional.normalize(rows.float() - 128, dim=1))
    assert reference.n == 5
    assert torch.allclose(reference.mean, expected.mean, atol=1e-6)
    assert torch.allclose(reference.covariance, expected.covariance, atol=1e-6)


def test_statistics_are_read_from_a_file(tmp_path: Path) -> None:
    saved = fit(torch.randn(20, 8))
    saved.save(tmp_path / "pictures.safetensors")
    assert torch.equal(read_reference(tmp_path / "pictures.safetensors", ReadingScorer(), 8, 8).mean, saved.mean)


def test_unreadable_and_missing_pictures_are_named(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 2)
    (tmp_path / "pictures" / "broken.png").write_text("no picture")
    with pytest.raises(InputError, match=r"broken\.png cannot be read"):
        read_reference(tmp_path / "pictures", ReadingScorer(), 8, 8)
    with pytest.raises(InputError, match="has 0 pictures"):
        read_reference(tmp_path / "none", ReadingScorer(), 8, 8)


def test_a_folder_is_known_by_its_content_not_its_place(tmp_path: Path) -> None:
    for place, count in (("one", 2), ("two", 2), ("three", 3)):
        (tmp_path / place).mkdir()
        make_pictures(tmp_path / place / "pictures", count)
    one, two, three = (identity(tmp_path / place / "pictures") for place in ("one", "two", "three"))
    assert one == two != three
    assert one.startswith("pictures@")


def test_chosen_prompts_are_spread_and_repeatable() -> None:
    prompts = [str(index) for index in range(100)]
    chosen = choose(prompts, 20, seed=5)
    assert chosen == choose(prompts, 20, seed=5)
    assert len(set(chosen.prompts)) == 20 and max(map(int, chosen.prompts)) > 50
    assert chosen.seeds == tuple(range(5, 25))
    assert choose(["a", "b"], 5, seed=0).prompts == ("a", "b", "a", "b", "a", "b")
