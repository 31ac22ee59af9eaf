"""Transformers written out with nothing but matrix products, to compare the libraries' with."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = Mapping[str, Tensor]


def under(prefix: str, weights: Weights) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def linear(x: Tensor, weights: Weights, name: str) -> Tensor:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def norm(x: Tensor, weights: Weights, name: str, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, seen: Tensor | None = None) -> Tensor:
    """Attention (n, m, c) of queries (n, m, c) to keys (n, k, c) of which those ``seen`` (n, k) take part."""
    results = []
    for q, k, v in zip(query.chunk(heads, -1), key.chunk(heads, -1), value.chunk(heads, -1), strict=True):
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5
        if seen is not None:
            scores = scores.masked_fill(~seen[:, None].bool(), -torch.inf)
        results.append(scores.softmax(-1) @ v)
    return torch.cat(results, -1)


def vision_transformer(pictures: Tensor, weights: Weights, heads: int) -> Tensor:
    """Normalised tokens (n, t, c) of preprocessed pictures, the class token first; timm's names."""
    patch = weights["patch_embed.proj.weight"]
    patches = F.unfold(pictures, patch.shape[-1], stride=patch.shape[-1]).transpose(1, 2)
    tokens = patches @ patch.flatten(1).T + weights["patch_embed.proj.bias"]
    x = torch.cat([weights["cls_token"].expand(len(tokens), -1, -1), tokens], 1) + weights["pos_embed"]
    for number in range(sum(name.endswith("attn.qkv.weight") for name in weights)):
        block = under(f"blocks.{number}.", weights)
        q, k, v = linear(norm(x, block, "norm1", 1e-6), block, "attn.qkv").chunk(3, -1)
        x = x + linear(attend(q, k, v, heads), block, "attn.proj") * block.get("ls1.gamma", 1)
        hidden = F.gelu(linear(norm(x, block, "norm2", 1e-6), block, "mlp.fc1"))
        x = x + linear(hidden, block, "mlp.fc2") * block.get("ls2.gamma", 1)
    return norm(x, weights, "norm", 1e-6)


def cross_attending_bert(ids: Tensor, seen: Tensor, pictures: Tensor, weights: Weights, heads: int) -> Tensor:
    """Tokens (n, t, c) of word pieces (n, t), of which those ``seen`` take part, looking at tokens of pictures."""
    words = weights["embeddings.word_embeddings.weight"][ids]
    places = weights["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = norm(words + places, weights, "embeddings.LayerNorm", 1e-12)
    for number in range(sum(name.endswith("intermediate.dense.weight") for name in weights)):
        layer = under(f"encoder.layer.{number}.", weights)
        for kind, source, mask in (("attention", None, seen), ("crossattention", pictures, None)):
            looked_at = x if source is None else source
            query, key, value = (
                linear(y, layer, f"{kind}.self.{part}")
                for part, y in (("query", x), ("key", looked_at), ("value", looked_at))
            )
            out = linear(attend(query, key, value, heads, mask), layer, f"{kind}.output.dense")
            x = norm(out + x, layer, f"{kind}.output.LayerNorm", 1e-12)
        out = linear(F.gelu(linear(x, layer, "intermediate.dense")), layer, "output.dense")
        x = norm(out + x, layer, "output.LayerNorm", 1e-12)
    return x
