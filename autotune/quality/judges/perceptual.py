"""Judges of pairs that look at structure and texture: LPIPS and DISTS.

DISTS (Ding et al. 2020, "Image Quality Assessment: Unifying Structure and Texture Similarity", arXiv 2004.07728)
compares means (texture) and covariances (structure) of every channel of VGG-16's features and of the picture itself:

    1 - sum over channels of (alpha * l + beta * s),    l = (2 mx my + c) / (mx^2 + my^2 + c),
                                                        s = (2 cov_xy + c) / (var_x + var_y + c)

with c = 1e-6 and weights alpha and beta that sum to 1 over all. L2 pooling with a Hanning window replaces max pooling.
Facts are those of the authors' ``DISTS_pytorch/DISTS_pt.py``; alpha and beta come with torchmetrics, and VGG-16 is
torchvision's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.quality.judges.files import refuse_damaged, tensors_of, torchvision_weights
from autotune.quality.judges.measures import PairedJudge
from autotune.quality.lpips import LEAST_SIDE, Lpips

__all__ = ["VGG16_URL", "Dists", "as_seen", "load_dists", "load_lpips"]

VGG16_URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
"""torchvision's ``VGG16_Weights.IMAGENET1K_V1``."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# The convolutions of VGG-16 by their places in torchvision's ``features``; a stage ends where it pools.
_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
_C = 1e-6
_SIDE = 256


def load_lpips(files: Mapping[str, Path], device: str | torch.device, batch_size: int) -> PairedJudge:
    """LPIPS in AlexNet, as papers print it; see :mod:`autotune.quality.lpips`."""
    measure = Lpips("alex", device=device, batch_size=batch_size)
    return PairedJudge("lpips", measure, least_side=LEAST_SIDE, device=device, batch_size=batch_size)


def load_dists(files: Mapping[str, Path], device: str | torch.device, batch_size: int) -> PairedJudge:
    """DISTS, 0 to 1. Larger pictures are resized to 256 pixels on their shorter side first, as the authors' are."""
    try:
        from torchmetrics.functional.image import dists
    except ImportError as error:
        raise InputError("judge dists needs torchmetrics 1.8 or later; run `pip install -U torchmetrics`") from error

    path = Path(dists.__file__).with_name("dists_models") / "weights.pt"
    scales = tensors_of("dists", path)
    backbone = torchvision_weights("dists", VGG16_URL)
    try:
        network = Dists(backbone, scales["alpha"], scales["beta"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise refuse_damaged("dists", path, error) from error
    network.eval().requires_grad_(False).to(device)

    def distances(pictures: Tensor, exact: Tensor) -> Tensor:
        found: Tensor = network(as_seen(pictures), as_seen(exact))
        return found

    return PairedJudge("dists", distances, least_side=LEAST_SIDE, device=device, batch_size=batch_size)


class Dists(nn.Module):
    """The measure on pictures (n, 3, H, W) float32 in 0..1.

    Args:
        backbone: VGG-16's tensors by torchvision's names; widths follow from their shapes.
        alpha: (1, C, 1, 1), weights of the means of all C channels: the picture's three, then each stage's.
        beta: (1, C, 1, 1), weights of the covariances.

    Raises:
        KeyError: A layer is missing.
        ValueError: The weights are not of that many channels.
    """

    alpha: Tensor
    beta: Tensor
    window: Tensor

    def __init__(self, backbone: Mapping[str, Tensor], alpha: Tensor, beta: Tensor) -> None:
        super().__init__()
        self._layers = nn.ModuleDict()
        for place in (place for stage in _STAGES for place in stage):
            weight, bias = (backbone[f"features.{place}.{part}"] for part in ("weight", "bias"))
            layer = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            layer.load_state_dict({"weight": weight, "bias": bias})
            self._layers[str(place)] = layer
        channels = 3 + sum(len(backbone[f"features.{stage[-1]}.bias"]) for stage in _STAGES)
        if alpha.numel() != channels or beta.numel() != channels:
            raise ValueError(f"alpha and beta are of {alpha.numel()} and {beta.numel()} channels, not {channels}")
        total = alpha.sum() + beta.sum()
        self.register_buffer("alpha", (alpha / total).flatten().float())
        self.register_buffer("beta", (beta / total).flatten().float())
        edge = torch.tensor([0.25, 0.5, 0.25])
        self.register_buffer("window", edge[:, None] * edge)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Distances (n,)."""
        distance = one.new_zeros(len(one))
        start = 0
        for a, b in zip(self._stages(one), self._stages(other), strict=True):
            part = slice(start, start + a.shape[1])
            start = part.stop
            mean_a, mean_b = (x.mean((2, 3), keepdim=True) for x in (a, b))
            variance_a, variance_b = ((x - m).square().mean((2, 3)) for x, m in ((a, mean_a), (b, mean_b)))
            covariance = ((a - mean_a) * (b - mean_b)).mean((2, 3))
            m, n = mean_a[:, :, 0, 0], mean_b[:, :, 0, 0]
            # One minus each similarity, which is exactly 0 for identical pictures.
            texture = 1 - (2 * m * n + _C) / (m.square() + n.square() + _C)
            structure = 1 - (2 * covariance + _C) / (variance_a + variance_b + _C)
            distance = distance + texture @ self.alpha[part] + structure @ self.beta[part]
        return distance

    def _stages(self, pictures: Tensor) -> list[Tensor]:
        """The pictures themselves and every stage's features."""
        mean, std = (pictures.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _STD))
        found, x = [pictures], (pictures - mean) / std
        for number, stage in enumerate(_STAGES):
            if number:
                x = self._pooled(x)
            for place in stage:
                x = F.relu(self._layers[str(place)](x))
            found.append(x)
        return found

    def _pooled(self, x: Tensor) -> Tensor:
        """L2 pooling: the root of a windowed mean of squares, at every second place."""
        channels = x.shape[1]
        window = self.window.expand(channels, 1, 3, 3)
        return (F.conv2d(x.square(), window, stride=2, padding=1, groups=channels) + 1e-12).sqrt()


def as_seen(pictures: Tensor) -> Tensor:
    """Pictures (n, 3, H, W) uint8 as DISTS takes them: in 0..1, the shorter side at most 256 pixels."""
    x = pictures.float() / 255
    height, width = x.shape[-2:]
    shorter = min(height, width)
    if shorter <= _SIDE:
        return x
    size = (round(height * _SIDE / shorter), round(width * _SIDE / shorter))
    return F.interpolate(x, size, mode="bilinear", antialias=True)
