from __future__ import annotations

import shutil
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality import Scorer, prompt_alignment
from tests.quality.conftest import IMAGE_SIZE

PROMPTS = ["noto red apple", "fluent green apple", "noto dog", "fluent moon", "red tram"]


def pictures(n: int = 5, height: int = IMAGE_SIZE, width: int = IMAGE_SIZE) -> Tensor:
    """Smooth random pictures: nearest, bilinear and bicubic differ on them, as on photographs."""
    generator = torch.Generator().manual_seed(0)
    rough = torch.rand((n, 3, 5, 5), generator=generator)
    smooth = torch.nn.functional.interpolate(rough, (height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8)


def open_clip_features(folder: Path, images: Tensor) -> Tensor:
    """What open_clip itself computes, from PIL pictures through its own preprocessing."""
    network, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    batch = torch.stack([preprocess(Image.fromarray(x.permute(1, 2, 0).numpy())) for x in images])
    with torch.no_grad():
        return network.eval().encode_image(batch, normalize=True)


def test_alignment_is_open_clips_own_cosine(clip_folder: Path) -> None:
    scorer = Scorer(clip_folder)
    text = scorer.text_features(PROMPTS)
    ours = prompt_alignment(scorer.image_features(pictures()), text)

    network = open_clip.create_model(f"local-dir:{clip_folder}").eval()
    tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")(PROMPTS)
    with torch.no_grad():
        expected_text = network.encode_text(tokens, normalize=True)
    expected = (open_clip_features(clip_folder, pictures()) * expected_text).sum(1)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)
    assert ours.std() > 1e-3  # the tiny network does tell the pairs apart


@pytest.mark.parametrize("size", [20, 100])
def test_resizing_is_open_clips_up_to_its_rounding_to_bytes(clip_folder: Path, size: int) -> None:
    images = pictures(height=size, width=size)
    ours = Scorer(clip_folder).image_features(images)
    expected = open_clip_features(clip_folder, images)
    assert float((ours - expected).abs().max()) < 0.003
    assert float(torch.pdist(expected).min()) > 0.03


def test_features_are_normalised_and_do_not_depend_on_the_batch(clip_folder: Path) -> None:
    one_by_one = Scorer(clip_folder, batch_size=1)
    together = Scorer(clip_folder, batch_size=64)
    for features in (together.image_features(pictures()), together.text_features(PROMPTS)):
        assert features.dtype == torch.float32
        assert features.shape == (5, 16)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(one_by_one.image_features(pictures()), together.image_features(pictures()))
    torch.testing.assert_close(one_by_one.text_features(PROMPTS), together.text_features(PROMPTS))


def test_local_dir_prefix_is_accepted(clip_folder: Path) -> None:
    images = pictures(2)
    assert torch.equal(
        Scorer(f"local-dir:{clip_folder}").image_features(images), Scorer(clip_folder).image_features(images)
    )


@pytest.mark.parametrize(
    "images",
    [pictures().float(), pictures()[0], pictures()[:, :1], pictures()[:0]],
    ids=["float", "one picture without batch", "grey", "none"],
)
def test_other_pictures_are_refused(clip_folder: Path, images: Tensor) -> None:
    with pytest.raises(ValueError, match="uint8"):
        Scorer(clip_folder).image_features(images)


@pytest.mark.parametrize("prompts", [[], "one string"])
def test_other_prompts_are_refused(clip_folder: Path, prompts: list[str] | str) -> None:
    with pytest.raises(ValueError, match="list of at least one prompt"):
        Scorer(clip_folder).text_features(prompts)


def test_missing_model_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{tmp_path} is no scoring model"):
        Scorer(tmp_path)


def test_missing_weights_are_an_error_not_a_random_network(clip_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(InputError, match="Cannot load the scoring model"):
        Scorer(tmp_path)
