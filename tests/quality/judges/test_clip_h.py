"""HPSv2 and PickScore with a tiny CLIP: one by way of open_clip, the other by transformers, with the same weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig

from autotune.core.errors import InputError
from autotune.quality.judges import load_judge
from autotune.quality.judges.measures import PreferenceJudge
from tests.quality.test_features import pictures

Folder = Callable[[str], Path]

PROMPTS = ["cat", "A red apple on a GREEN table", "cat", "the moon, " * 60]
ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 28, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
SCALE = 3.5


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(0)
    state: dict[str, Tensor] = CLIP(**ARCHITECTURE).state_dict()
    # Random, not the zeros and ones that layers begin with.
    state = {name: value + 0.1 * torch.randn_like(value) for name, value in state.items()}
    return state | {"logit_scale": torch.tensor(SCALE)}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip, "get_model_config", {"ViT-H-14": ARCHITECTURE}.__getitem__)


def in_transformers_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As PickScore's file has them, with the buffers that transformers kept when it was written."""
    found = {
        "logit_scale": weights["logit_scale"],
        "visual_projection.weight": weights["visual.proj"].T,
        "text_projection.weight": weights["text_projection"].T,
        "vision_model.embeddings.class_embedding": weights["visual.class_embedding"],
        "vision_model.embeddings.patch_embedding.weight": weights["visual.conv1.weight"],
        "vision_model.embeddings.position_embedding.weight": weights["visual.positional_embedding"],
        "vision_model.embeddings.position_ids": torch.arange(5)[None],
        "text_model.embeddings.token_embedding.weight": weights["token_embedding.weight"],
        "text_model.embeddings.position_embedding.weight": weights["positional_embedding"],
        "text_model.embeddings.position_ids": torch.arange(77)[None],
    }
    norms = {
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj"}
    parts |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    for tower, theirs in (("visual.transformer", "vision_model"), ("transformer", "text_model")):
        for layer in range(2):
            ours, other = f"{tower}.resblocks.{layer}", f"{theirs}.encoder.layers.{layer}"
            norms |= {f"{ours}.{part}": f"{other}.{name}" for part, name in parts.items()}
            for end in ("weight", "bias"):
                split = weights[f"{ours}.attn.in_proj_{end}"].chunk(3)
                found |= {f"{other}.self_attn.{p}_proj.{end}": t for p, t in zip("qkv", split, strict=True)}
    found |= {
        f"{theirs}.{end}": weights[f"{ours}.{end}"] for ours, theirs in norms.items() for end in ("weight", "bias")
    }
    return {name: value.contiguous().clone() for name, value in found.items()}


def write_hpsv2(folder: Path, weights: dict[str, Tensor]) -> None:
    torch.save({"epoch": 1, "state_dict": weights}, folder / "HPS_v2.1_compressed.pt")


def write_pickscore(folder: Path, weights: dict[str, Tensor]) -> None:
    common = {"num_hidden_layers": 2, "hidden_act": "gelu"}
    config = CLIPConfig(
        text_config=common
        | {
            "hidden_size": 16,
            "intermediate_size": 64,
            "num_attention_heads": 2,
            "eos_token_id": 2,
            "vocab_size": 49408,
        },
        vision_config=common
        | {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        projection_dim=16,
    )
    config.save_pretrained(folder)
    save_file(in_transformers_names(weights), folder / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture
def hpsv2(own_folder: Folder, weights: dict[str, Tensor], tiny: None) -> PreferenceJudge:
    write_hpsv2(own_folder("hpsv2"), weights)
    judge = load_judge("hpsv2", batch_size=3)
    assert isinstance(judge, PreferenceJudge)
    return judge


@pytest.fixture
def pickscore(own_folder: Folder, weights: dict[str, Tensor]) -> PreferenceJudge:
    write_pickscore(own_folder("pickscore"), weights)
    judge = load_judge("pickscore", batch_size=3)
    assert isinstance(judge, PreferenceJudge)
    return judge


def test_hpsv2_is_open_clips_cosine(hpsv2: PreferenceJudge, weights: dict[str, Tensor]) -> None:
    network = CLIP(**ARCHITECTURE).eval()
    network.load_state_dict(weights)
    seen = pictures(4, 28, 28)
    mean, std = torch.tensor(open_clip.OPENAI_DATASET_MEAN), torch.tensor(open_clip.OPENAI_DATASET_STD)
    with torch.no_grad():
        images, texts, _ = network(
            (seen / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1), open_clip.get_tokenizer("ViT-B-32")(PROMPTS)
        )
    scores = hpsv2(seen, PROMPTS)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores, (images * texts).sum(1).double(), rtol=1e-4, atol=1e-6)
    assert float(scores.std()) > 1e-3  # the tiny network does tell the pairs apart


def test_both_packages_agree_up_to_the_learned_scale(hpsv2: PreferenceJudge, pickscore: PreferenceJudge) -> None:
    seen = pictures(4, 50, 40)
    expected = hpsv2(seen, PROMPTS) * torch.tensor(SCALE).exp()
    torch.testing.assert_close(pickscore(seen, PROMPTS), expected, rtol=1e-4, atol=1e-4)


def test_a_pair_scores_the_same_alone(hpsv2: PreferenceJudge) -> None:
    seen = pictures(4)
    alone = torch.cat([hpsv2(seen[i : i + 1], PROMPTS[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, hpsv2(seen, PROMPTS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "prompts"),
    [(pictures(2), ["cat"]), (pictures(2), "ca"), (pictures(2).float(), ["a", "b"]), (pictures(1)[:0], [])],
    ids=["too few", "one text", "floating point", "none"],
)
def test_what_does_not_fit_is_refused(hpsv2: PreferenceJudge, images: Tensor, prompts: list[str]) -> None:
    with pytest.raises(ValueError, match="Expected"):
        hpsv2(images, prompts)


def test_damaged_weights_are_told_by_what_they_say(own_folder: Folder, weights: dict[str, Tensor], tiny: None) -> None:
    write_hpsv2(own_folder("hpsv2"), weights | {"visual.proj": weights["visual.proj"] * torch.nan})
    with pytest.raises(InputError, match="judge hpsv2: what it says of 2 of 2 inputs is not finite"):
        load_judge("hpsv2")(pictures(2), ["cat", "dog"])


@pytest.mark.parametrize("content", ["pickle", "lacking", "other shape", "text"])
def test_other_files_are_no_hpsv2(content: str, own_folder: Folder, weights: dict[str, Tensor], tiny: None) -> None:
    folder = own_folder("hpsv2")
    if content == "pickle":
        torch.save({"state_dict": weights, "network": nn.Linear(2, 2)}, folder / "HPS_v2.1_compressed.pt")
    elif content == "lacking":
        write_hpsv2(folder, {name: value for name, value in weights.items() if name != "visual.proj"})
    elif content == "other shape":
        write_hpsv2(folder, weights | {"visual.proj": torch.zeros(3, 3)})
    else:
        (folder / "HPS_v2.1_compressed.pt").write_text("<html>not found</html>")
    with pytest.raises(InputError, match=r"^judge hpsv2: .*HPS_v2.1_compressed.pt cannot be loaded") as caught:
        load_judge("hpsv2")
    assert "\n" not in str(caught.value)


def test_layers_that_are_missing_are_not_made_up(own_folder: Folder, weights: dict[str, Tensor]) -> None:
    folder = own_folder("pickscore")
    write_pickscore(folder, weights)
    state = in_transformers_names(weights)
    del state["text_projection.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"cannot be loaded .*1 tensors are missing, such as text_projection.weight"):
        load_judge("pickscore")
