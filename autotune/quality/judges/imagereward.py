"""ImageReward (Xu et al. 2023, arXiv 2304.05977): BLIP looks at picture and prompt together, a small head scores them.

Facts are those of the authors' package (``ImageReward/ImageReward.py`` and ``ImageReward/models/BLIP``): the picture at
224 pixels, normalised as CLIP's are; the prompt in lower case, cut or padded to 35 word pieces; the text network looks
at all of the picture's tokens in every layer; linear layers with nothing between them score its first token; the score
is standardised by two constants. BLIP's projections, which the file holds as well, play no part.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.quality.extractor import Preprocessing
from autotune.quality.judges.clip_h import CLIP_MEAN, CLIP_STD
from autotune.quality.judges.files import refuse_damaged, tensors_of
from autotune.quality.judges.measures import PreferenceJudge

__all__ = ["load_imagereward"]

_MEAN, _DEVIATION = 0.16717362830052426, 1.0333394966054072
_LONGEST = 35
_HEAD_WIDTH = 64
# Buffers that hold 0, 1, 2, ..., kept by some versions of transformers and not by others.
_COUNTED = "position_ids"

_VISION, _TEXT, _HEAD = "blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."


def load_imagereward(files: Mapping[str, Path], device: str | torch.device, batch_size: int) -> PreferenceJudge:
    """The judge; scores are about 0 with deviation 1 over the pictures it was trained on.

    Args:
        files: ``ImageReward.pt``, ``med_config.json`` (the text network's sizes; the picture network's follow from the
            weights) and ``vocab.txt`` (BERT's, of uncased English).
        device: Where it runs.
        batch_size: Most pictures per forward pass.
    """
    from tokenizers import BertWordPieceTokenizer

    path = files["ImageReward.pt"]
    weights = tensors_of("imagereward", path)
    try:
        sizes = json.loads(files["med_config.json"].read_text(encoding="utf-8"))
        vision = _vision(_under(_VISION, weights))
        text = _text(sizes, _under(_TEXT, weights), vision.embed_dim)
        head = _head(_under(_HEAD, weights))
    except InputError:
        raise
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise refuse_damaged("imagereward", path, error) from error
    try:
        tokenizer = BertWordPieceTokenizer(str(files["vocab.txt"]), lowercase=True)
    # The library raises nothing more definite.
    except Exception as error:
        raise refuse_damaged("imagereward", files["vocab.txt"], error) from error
    tokenizer.enable_truncation(_LONGEST)
    tokenizer.enable_padding(length=_LONGEST)
    for network in (vision, text, head):
        network.eval().requires_grad_(False).to(device)
    height, width = vision.patch_embed.img_size
    preprocess = Preprocessing((height, width), CLIP_MEAN, CLIP_STD)

    def score(pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        encoded = tokenizer.encode_batch(list(prompts))
        seen = vision.forward_features(preprocess(pictures))
        read = text(
            input_ids=torch.tensor([each.ids for each in encoded], device=device),
            attention_mask=torch.tensor([each.attention_mask for each in encoded], device=device),
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=device),
            is_decoder=False,
        ).last_hidden_state
        rewards: Tensor = head(read[:, 0])
        return (rewards[:, 0] - _MEAN) / _DEVIATION

    return PreferenceJudge("imagereward", score, device=device, batch_size=batch_size)


def _vision(weights: Mapping[str, Tensor]) -> Any:
    """BLIP's vision transformer, whose layers are timm's, with heads of 64 channels; all tokens come out."""
    from timm.models.vision_transformer import VisionTransformer

    width, _, patch, _ = weights["patch_embed.proj.weight"].shape
    side = round((weights["pos_embed"].shape[1] - 1) ** 0.5)
    depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
    network = VisionTransformer(
        img_size=side * patch,
        patch_size=patch,
        embed_dim=width,
        depth=depth,
        num_heads=width // _HEAD_WIDTH,
        num_classes=0,
        global_pool="",
    )
    network.load_state_dict(weights)
    return network


def _text(sizes: Mapping[str, Any], weights: Mapping[str, Tensor], picture_width: int) -> nn.Module:
    """BLIP's BERT with cross-attention to ``picture_width`` channels in every layer."""
    from transformers import BlipTextConfig
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    same = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "max_position_embeddings", "hidden_act", "layer_norm_eps", "pad_token_id",
    )  # fmt: skip
    config = BlipTextConfig(
        **{name: sizes[name] for name in same},
        encoder_hidden_size=picture_width,
        # It is what gives the layers their cross-attention; nothing is masked as in a decoder.
        is_decoder=True,
        attn_implementation="eager",
    )
    network: nn.Module = BlipTextModel(config, add_pooling_layer=False)
    found = network.load_state_dict({k: v for k, v in weights.items() if not k.endswith(_COUNTED)}, strict=False)
    off = [name for name in (*found.missing_keys, *found.unexpected_keys) if not name.endswith(_COUNTED)]
    if off:
        raise KeyError(f"{len(off)} tensors of the text network are missing or unknown, such as {off[0]}")
    return network


def _head(weights: Mapping[str, Tensor]) -> nn.Sequential:
    """Linear layers one after the other; the places between that have no weights were dropout."""
    last = max(int(name.split(".")[0]) for name in weights)
    layers = nn.Sequential()
    for place in range(last + 1):
        weight = weights.get(f"{place}.weight")
        layers.append(nn.Identity() if weight is None else nn.Linear(weight.shape[1], weight.shape[0]))
    layers.load_state_dict(weights)
    return layers


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those whose names begin so, by the rest of the name."""
    found = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    if not found:
        raise KeyError(f"no tensor is called {prefix}...")
    return found
