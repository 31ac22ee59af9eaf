"""LPIPS: how different two pictures look to a network that was fitted to people's judgements.

Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (arXiv 1801.03924),
by way of torchmetrics. Its backbones were trained on ImageNet and come from torchvision's site when they are
first used: this is asked for by name, never a default.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from autotune.core.errors import InputError, did_you_mean, reason_of
from autotune.core.naming import Backbone
from autotune.quality.fidelity import check_pairs

__all__ = ["Backbone", "LEAST_SIDE", "Lpips"]

LEAST_SIDE = 32
"""Pixels a side of the smallest picture."""


_WEIGHTS: dict[Backbone, str] = {"alex": "AlexNet", "vgg": "VGG16", "squeeze": "SqueezeNet1_1"}


class Lpips:
    """The measure with one backbone.

    Args:
        backbone: ``alex`` is what papers print; ``squeeze`` takes 5 MB.
        device: Where it runs.
        batch_size: Most pairs per forward pass.

    Raises:
        InputError: If there is no such backbone, torchvision is missing or its weights cannot be had.

    Example::

        distances = Lpips("squeeze")(pictures, full_run_pictures)
    """

    def __init__(
        self, backbone: Backbone = "alex", *, device: str | torch.device = "cpu", batch_size: int = 32
    ) -> None:
        if backbone not in get_args(Backbone):
            raise InputError(f"LPIPS has no backbone {backbone!r}{did_you_mean(backbone, get_args(Backbone))}")
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

        try:
            self._network = LearnedPerceptualImagePatchSimilarity(net_type=backbone).net.to(device)
        except ModuleNotFoundError as error:
            raise InputError("LPIPS needs a package that is not installed; run `pip install torchvision`") from error
        except (OSError, RuntimeError) as error:
            folder = Path(torch.hub.get_dir()) / "checkpoints"
            raise InputError(
                f"the {backbone} weights that LPIPS needs cannot be had ({reason_of(error)}); put the file of "
                f"{_url(backbone)} into {folder}, or leave LPIPS out"
            ) from error
        self.backbone = backbone
        self._device = torch.device(device)
        self._batch_size = batch_size

    def to(self, device: str | torch.device) -> Lpips:
        """Move it to another device, where it runs from then on."""
        self._device = torch.device(device)
        self._network.to(self._device)
        return self

    @torch.no_grad()
    def __call__(self, pictures: Tensor, full: Tensor) -> Tensor:
        """Distances (N,) float64 of pairs, zero for identical ones, higher for more different ones.

        Args:
            pictures: (N, 3, H, W) uint8, H and W at least 32.
            full: (N, 3, H, W) uint8.

        Raises:
            ValueError: If shapes or types differ, or pictures are too small.
        """
        check_pairs(pictures, full)
        if min(pictures.shape[-2:]) < LEAST_SIDE:
            raise ValueError(f"LPIPS needs at least {LEAST_SIDE} pixels a side, not {tuple(pictures.shape[-2:])}.")
        batches = zip(torch.split(pictures, self._batch_size), torch.split(full, self._batch_size), strict=True)
        values = [self._network(*(self._unit(x) for x in pair), normalize=True).flatten() for pair in batches]
        return torch.cat(values).double().cpu()

    def _unit(self, pictures: Tensor) -> Tensor:
        return pictures.to(self._device).float() / 255


def _url(backbone: Backbone) -> str:
    from torchvision import models

    return str(models.get_weight(f"{_WEIGHTS[backbone]}_Weights.IMAGENET1K_V1").url)
