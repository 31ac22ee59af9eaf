from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality import FeatureNetwork, Scorer
from autotune.quality.extractor import Preprocessing
from autotune.quality.judges import fingerprint, load_judge, measure
from tests.quality.judges.by_hand import vision_transformer
from tests.quality.test_features import pictures

Folder = Callable[[str], Path]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_dinov2(folder: Path, side: int) -> dict[str, Tensor]:
    """As timm's repository on the Hub has it, but for the arguments that make it small."""
    arguments = {"embed_dim": 32, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    state = timm.create_model("vit_large_patch14_dinov2", img_size=side, num_classes=0, **arguments).state_dict()
    state = {name: value + 0.1 * torch.randn_like(value) for name, value in state.items()}
    save_file(state, folder / "model.safetensors")
    config = {
        "architecture": "vit_large_patch14_dinov2",
        "num_classes": 0,
        "global_pool": "token",
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [3, side, side], "fixed_input_size": True, "interpolation": "bicubic", "crop_pct": 1.0,
            "mean": MEAN, "std": STD, "num_classes": 0, "first_conv": "patch_embed.proj", "classifier": "head",
        },
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return state


def test_dinov2_is_the_class_token_of_224_pixels(own_folder: Folder) -> None:
    state = write_dinov2(own_folder("dinov2"), 224)
    images = pictures(2, 60, 50)
    judge = load_judge("dinov2", batch_size=1)
    assert isinstance(judge, FeatureNetwork)
    assert judge.name == "dinov2"
    expected = vision_transformer(Preprocessing((224, 224), MEAN, STD)(images), state, heads=2)[:, 0]
    torch.testing.assert_close(judge.image_features(images), expected, rtol=1e-3, atol=1e-4)
    assert float(torch.pdist(expected)) > 0.1


def test_the_published_position_embeddings_are_resampled(own_folder: Folder) -> None:
    write_dinov2(own_folder("dinov2"), 518)
    assert measure("dinov2")(pictures(2)).shape == (2, 32)


def test_a_dinov2_that_lacks_a_layer_is_refused(own_folder: Folder) -> None:
    folder = own_folder("dinov2")
    state = write_dinov2(folder, 224)
    del state["blocks.1.mlp.fc2.bias"]
    save_file(state, folder / "model.safetensors")
    with pytest.raises(InputError, match=r"^judge dinov2: .* cannot be loaded") as caught:
        load_judge("dinov2")
    assert "\n" not in str(caught.value)


def test_clip_is_the_scorer_of_its_folder(own_folder: Folder, clip_folder: Path) -> None:
    shutil.copytree(clip_folder, own_folder("clip"), dirs_exist_ok=True)
    judge = load_judge("clip")
    assert isinstance(judge, Scorer)
    assert torch.equal(judge.image_features(pictures()), Scorer(clip_folder).image_features(pictures()))


def test_a_network_of_damaged_weights_is_told_by_what_it_says(clip_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    shutil.copytree(clip_folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "open_clip_model.safetensors"
    state = load_file(file)
    save_file(state | {"visual.proj": state["visual.proj"] * torch.nan}, file)
    scorer = Scorer(tmp_path)
    with pytest.raises(InputError, match=r"what it says of 5 of 5 inputs is not finite"):
        scorer.image_features(pictures())
    save_file(state | {"text_projection": state["text_projection"] * torch.nan}, file)
    with pytest.raises(InputError, match=r"what it says of 1 of 1 inputs is not finite"):
        Scorer(tmp_path).text_features(["red"])


def test_fingerprints_follow_the_weights(own_folder: Folder) -> None:
    folder = own_folder("dinov2")
    state = write_dinov2(folder, 224)
    before = fingerprint("dinov2")
    assert before.startswith("dinov2@") and fingerprint("dinov2") == before
    save_file({name: value + 1 for name, value in state.items()}, folder / "model.safetensors")
    assert fingerprint("dinov2") != before
    assert fingerprint("lpips") == "lpips"
