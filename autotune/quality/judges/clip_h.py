"""Preference judges that are a CLIP ViT-H/14 trained further on people's choices: HPSv2 and PickScore.

Both score a picture by the cosine of its features and its prompt's. Pictures are normalised as CLIP's are and resized
to 224 pixels as a whole; the authors pad (HPSv2) or crop (PickScore) what is not square.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from autotune.quality.extractor import Preprocessing
from autotune.quality.judges.files import refuse_damaged
from autotune.quality.judges.measures import PreferenceJudge

__all__ = ["CLIP_MEAN", "CLIP_STD", "load_hpsv2", "load_pickscore"]

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
"""Of the channels in CLIP's training pictures (Radford et al. 2021; ``open_clip/constants.py``)."""

_ARCHITECTURE = "ViT-H-14"

# Unpicklers of files that hold other things than tensors, and layers that do not fit.
_BROKEN = (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, EOFError, UnpicklingError)


def load_hpsv2(
    files: Mapping[str, Path],
    device: str | torch.device,
    batch_size: int,
    architecture: Mapping[str, Any] | None = None,
) -> PreferenceJudge:
    """HPS v2.1 (Wu et al. 2023, arXiv 2306.09341): the cosine, which papers print times 100.

    The file holds open_clip's state dict under ``state_dict``, as ``hpsv2/img_score.py`` of the authors' package loads
    it; theirs runs in half precision where this runs in full.

    Args:
        files: ``HPS_v2.1_compressed.pt``.
        device: Where it runs.
        batch_size: Most pictures per forward pass.
        architecture: Another than open_clip's ViT-H-14, in the form of its configurations.
    """
    import open_clip
    from open_clip.model import CLIP

    (path,) = files.values()
    network = CLIP(**(architecture or open_clip.get_model_config(_ARCHITECTURE)))
    try:
        open_clip.load_checkpoint(network, str(path), weights_only=True)
    except _BROKEN as error:
        raise refuse_damaged("hpsv2", path, error) from error
    network.eval().requires_grad_(False).to(device)
    return _judge(
        "hpsv2",
        lambda pictures: network.encode_image(pictures),
        lambda tokens: network.encode_text(tokens),
        scale=1.0,
        side=network.visual.image_size[0],
        longest=network.context_length,
        device=device,
        batch_size=batch_size,
    )


def load_pickscore(files: Mapping[str, Path], device: str | torch.device, batch_size: int) -> PreferenceJudge:
    """PickScore v1 (Kirstain et al. 2023, arXiv 2305.01569): the cosine times the learned ``exp(logit_scale)``.

    The files are those of transformers' ``CLIPModel``; the score is that of the README of the authors' package. Prompts
    are split by open_clip's tokenizer, which is CLIP's: what stands after a prompt's end changes nothing, since the
    text network looks back only.

    Args:
        files: ``config.json`` and ``model.safetensors`` in the same folder.
        device: Where it runs.
        batch_size: Most pictures per forward pass.
    """
    from transformers import CLIPModel

    path = files["model.safetensors"]
    try:
        network, report = CLIPModel.from_pretrained(
            path.parent,
            local_files_only=True,
            use_safetensors=path.suffix == ".safetensors",
            output_loading_info=True,
        )
    except _BROKEN as error:
        raise refuse_damaged("pickscore", path, error) from error
    lacking = sorted({*report["missing_keys"], *map(str, report["mismatched_keys"])})
    if lacking:
        # transformers only warns, and would judge with random layers.
        raise refuse_damaged("pickscore", path, KeyError(f"{len(lacking)} tensors are missing, such as {lacking[0]}"))
    network.float().eval().requires_grad_(False).to(device)
    return _judge(
        "pickscore",
        lambda pictures: network.visual_projection(network.vision_model(pixel_values=pictures).pooler_output),
        lambda tokens: network.text_projection(network.text_model(input_ids=tokens).pooler_output),
        scale=float(network.logit_scale.exp()),
        side=network.config.vision_config.image_size,
        longest=network.config.text_config.max_position_embeddings,
        device=device,
        batch_size=batch_size,
    )


def _judge(
    name: str,
    encode_pictures: Callable[[Tensor], Tensor],
    encode_tokens: Callable[[Tensor], Tensor],
    *,
    scale: float,
    side: int,
    longest: int,
    device: str | torch.device,
    batch_size: int,
) -> PreferenceJudge:
    """The judge whose score is ``scale`` times the cosine of picture and prompt."""
    import open_clip

    tokenize = open_clip.SimpleTokenizer(context_length=longest)
    preprocess = Preprocessing((side, side), CLIP_MEAN, CLIP_STD)
    # Every candidate is judged with the same prompts.
    known: dict[str, Tensor] = {}

    def features_of(prompts: Sequence[str]) -> Tensor:
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in known]
        if new:
            features = F.normalize(encode_tokens(tokenize(new).to(device)), dim=1)
            known.update(zip(new, features, strict=True))
        return torch.stack([known[prompt] for prompt in prompts])

    def score(pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        seen = F.normalize(encode_pictures(preprocess(pictures)), dim=1)
        return scale * (seen * features_of(prompts)).sum(1)

    return PreferenceJudge(name, score, device=device, batch_size=batch_size)
