"""ImageReward with tiny random weights under the published names, compared with BLIP written out by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.quality.extractor import Preprocessing
from autotune.quality.judges import load_judge
from autotune.quality.judges.measures import PreferenceJudge
from tests.quality.judges.by_hand import Weights, cross_attending_bert, linear, under, vision_transformer
from tests.quality.test_features import pictures

Folder = Callable[[str], Path]

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "cat", "play", "##ing", ","]
PROMPTS = ["cat", "A red CAT, playing", "zebra cat", "red " * 50]
# By hand: lower case, [CLS] first, [SEP] last, at most 35 pieces.
IDS = [[2, 6, 3], [2, 4, 5, 6, 9, 7, 8, 3], [2, 1, 6, 3], [2, *[5] * 33, 3]]
SIDE, PATCH, WIDTH, HIDDEN = 32, 16, 128, 24
SIZES: dict[str, Any] = {
    "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1, "hidden_size": HIDDEN, "initializer_range": 0.02, "intermediate_size": 40,
    "layer_norm_eps": 1e-12, "max_position_embeddings": 40, "model_type": "bert", "num_attention_heads": 3,
    "num_hidden_layers": 2, "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": len(PIECES),
    # The published file says so too; the picture network is wider.
    "encoder_width": 7, "add_cross_attention": True,
}  # fmt: skip


def shapes() -> dict[str, tuple[int, ...]]:
    """As ``ImageReward.pt`` has them."""
    found: dict[str, tuple[int, ...]] = {}

    def layer(name: str, out: int, into: int) -> None:
        found.update({f"{name}.weight": (out, into), f"{name}.bias": (out,)})

    def norm(name: str, width: int) -> None:
        found.update({f"{name}.weight": (width,), f"{name}.bias": (width,)})

    vision = "blip.visual_encoder"
    found[f"{vision}.cls_token"] = (1, 1, WIDTH)
    found[f"{vision}.pos_embed"] = (1, (SIDE // PATCH) ** 2 + 1, WIDTH)
    found[f"{vision}.patch_embed.proj.weight"] = (WIDTH, 3, PATCH, PATCH)
    found[f"{vision}.patch_embed.proj.bias"] = (WIDTH,)
    for block in (f"{vision}.blocks.{number}" for number in range(2)):
        norm(f"{block}.norm1", WIDTH)
        layer(f"{block}.attn.qkv", 3 * WIDTH, WIDTH)
        layer(f"{block}.attn.proj", WIDTH, WIDTH)
        norm(f"{block}.norm2", WIDTH)
        layer(f"{block}.mlp.fc1", 4 * WIDTH, WIDTH)
        layer(f"{block}.mlp.fc2", WIDTH, 4 * WIDTH)
    norm(f"{vision}.norm", WIDTH)
    text = "blip.text_encoder"
    found[f"{text}.embeddings.word_embeddings.weight"] = (len(PIECES), HIDDEN)
    found[f"{text}.embeddings.position_embeddings.weight"] = (40, HIDDEN)
    norm(f"{text}.embeddings.LayerNorm", HIDDEN)
    for each in (f"{text}.encoder.layer.{number}" for number in range(2)):
        for kind, seen in (("attention", HIDDEN), ("crossattention", WIDTH)):
            layer(f"{each}.{kind}.self.query", HIDDEN, HIDDEN)
            layer(f"{each}.{kind}.self.key", HIDDEN, seen)
            layer(f"{each}.{kind}.self.value", HIDDEN, seen)
            layer(f"{each}.{kind}.output.dense", HIDDEN, HIDDEN)
            norm(f"{each}.{kind}.output.LayerNorm", HIDDEN)
        layer(f"{each}.intermediate.dense", 40, HIDDEN)
        layer(f"{each}.output.dense", HIDDEN, 40)
        norm(f"{each}.output.LayerNorm", HIDDEN)
    layer("blip.vision_proj", 8, WIDTH)
    layer("blip.text_proj", 8, HIDDEN)
    widths = (HIDDEN, 32, 16, 8, 4, 1)
    for place, into, out in zip((0, 2, 4, 6, 7), widths[:-1], widths[1:], strict=True):
        layer(f"mlp.layers.{place}", out, into)
    return found


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes().items():
        values = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            # Large enough for the tiny networks to tell their inputs apart.
            state[name] = values if "embeddings" in name else 2 * values / shape[-1] ** 0.5
        else:
            state[name] = 0.3 * values + ("orm" in name and name.endswith("weight"))
    return state | {"blip.text_encoder.embeddings.position_ids": torch.arange(40)[None]}


def write(folder: Path, weights: Weights, sizes: object = SIZES) -> None:
    torch.save(dict(weights), folder / "ImageReward.pt")
    (folder / "med_config.json").write_text(json.dumps(sizes))
    (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")


@pytest.fixture
def judge(own_folder: Folder, weights: dict[str, Tensor]) -> PreferenceJudge:
    write(own_folder("imagereward"), weights)
    loaded = load_judge("imagereward", batch_size=3)
    assert isinstance(loaded, PreferenceJudge)
    return loaded


def test_it_is_blip_by_hand(judge: PreferenceJudge, weights: dict[str, Tensor]) -> None:
    images = pictures(4, 48, 40)
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    seen = vision_transformer(
        Preprocessing((SIDE, SIDE), mean, std)(images), under("blip.visual_encoder.", weights), heads=2
    )
    ids = torch.tensor([row + [0] * (35 - len(row)) for row in IDS])
    read = cross_attending_bert(ids, ids > 0, seen, under("blip.text_encoder.", weights), heads=3)
    x = read[:, 0]
    for place in (0, 2, 4, 6, 7):
        x = linear(x, weights, f"mlp.layers.{place}")
    expected = (x[:, 0] - 0.16717362830052426) / 1.0333394966054072
    scores = judge(images, PROMPTS)
    torch.testing.assert_close(scores, expected.double(), rtol=1e-3, atol=1e-4)
    assert float(scores.std()) > 0.01


def test_prompt_and_picture_both_matter(judge: PreferenceJudge) -> None:
    images = pictures(2)
    one = judge(images, ["cat", "cat"])
    assert abs(float(one[0] - one[1])) > 1e-3
    assert float((judge(images, ["red", "red"]) - one).abs().min()) > 1e-3


@pytest.mark.parametrize(
    "fault", ["blip.text_encoder.encoder.layer.1.crossattention.self.key.weight", "blip.visual_encoder.norm.bias"]
)
def test_a_layer_that_is_missing_is_not_made_up(fault: str, own_folder: Folder, weights: dict[str, Tensor]) -> None:
    write(own_folder("imagereward"), {name: value for name, value in weights.items() if name != fault})
    with pytest.raises(InputError, match=r"^judge imagereward: .*ImageReward.pt cannot be loaded") as caught:
        load_judge("imagereward")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("state", "sizes"),
    [
        ({"a": torch.ones(1)}, SIZES),
        (None, {}),
        (None, []),
        (None, SIZES | {"hidden_size": 23}),
        (None, SIZES | {"num_attention_heads": 5}),
        ({"network": nn.Linear(2, 2)}, SIZES),
    ],
    ids=["other names", "no sizes", "a list", "other width", "heads that do not fit", "pickled network"],
)
def test_other_files_are_no_imagereward(
    state: Any, sizes: object, own_folder: Folder, weights: dict[str, Tensor]
) -> None:
    write(own_folder("imagereward"), weights if state is None else state, sizes)
    with pytest.raises(InputError, match=r"^judge imagereward: .* cannot be loaded") as caught:
        load_judge("imagereward")
    assert "\n" not in str(caught.value)
