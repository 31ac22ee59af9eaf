"""Judges of distributions: feature networks whose features distances are taken in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from autotune.core.errors import InputError
from autotune.quality.extractor import FeatureNetwork, Preprocessing
from autotune.quality.features import Scorer
from autotune.quality.judges.files import refuse_damaged
from autotune.quality.networks import feature_network

__all__ = ["load_clip", "load_dinov2", "load_inception"]

_DINOV2_SIDE = 224


def load_dinov2(files: Mapping[str, Path], device: str | torch.device, batch_size: int) -> FeatureNetwork:
    """DINOv2 ViT-L/14 (Oquab et al. 2023, arXiv 2304.07193): the class token's 1,024 features of 224-pixel pictures.

    Network and size are those of "FD-DINOv2" (Stein et al. 2023, arXiv 2306.04675; ``dgm_eval/models/dinov2.py``). The
    file is timm's: its position embeddings, for 518 pixels, are resampled by timm and not by DINOv2's own code, so
    distances differ from published ones in the last digits.

    Args:
        files: ``config.json``, which names the architecture, and ``model.safetensors`` in the same folder.
        device: Where it runs.
        batch_size: Most pictures per forward pass.
    """
    try:
        import timm
    except ImportError as error:
        raise InputError("judge dinov2 needs a package that is not installed; run `pip install timm`") from error

    folder = files["config.json"].parent
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, img_size=_DINOV2_SIDE)
    # timm hands on whatever its many formats raise.
    except Exception as error:
        raise refuse_damaged("dinov2", folder, error) from error
    config = timm.data.resolve_model_data_config(network)
    preprocess = Preprocessing((_DINOV2_SIDE, _DINOV2_SIDE), tuple(config["mean"]), tuple(config["std"]))
    network.eval().requires_grad_(False).to(device)
    return FeatureNetwork("dinov2", network, preprocess, device=device, batch_size=batch_size)


def load_clip(files: Mapping[str, Path], device: str | torch.device, batch_size: int) -> Scorer:
    """CLIP ViT-B/32 of LAION (Schuhmann et al. 2022, arXiv 2210.08402), in open_clip's format; of prompts as well."""
    return Scorer(files["open_clip_config.json"].parent, device=device, batch_size=batch_size)


def load_inception(files: Mapping[str, Path], device: str | torch.device, batch_size: int) -> FeatureNetwork:
    """Inception-v3 as the published FID has it (Heusel et al. 2017, arXiv 1706.08500): 2,048 features."""
    return feature_network("inception", device, batch_size=batch_size)
