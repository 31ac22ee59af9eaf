"""Image and text features of an open_clip model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from autotune.errors import InputError

__all__ = ["Scorer"]

_HUB, _LOCAL = "hf-hub:", "local-dir:"


class Scorer:
    """A frozen open_clip model in fp32 that turns pictures and prompts into comparable features.

    Args:
        model: A directory in open_clip's format (with or without ``local-dir:``), or ``hf-hub:<id>``.
        device: Where the model runs and the features stay.
        batch_size: Pictures or prompts per forward pass.

    Raises:
        InputError: If the directory lacks a configuration or weights, or the hub does not have the model.
    """

    def __init__(
        self, model: str | os.PathLike[str], *, device: str | torch.device = "cpu", batch_size: int = 64
    ) -> None:
        import open_clip

        name = _model_name(model)
        try:
            # Without weights open_clip only warns, and would score with a random network.
            network = open_clip.create_model(name, precision="fp32", device=device, require_pretrained=True)
            self._tokenize = open_clip.get_tokenizer(name)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"Cannot load the scoring model {name}: {error}") from error
        self._network = network.eval().requires_grad_(False)
        preprocessing = network.visual.preprocess_cfg
        size = preprocessing["size"]
        self._size: tuple[int, int] = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        self._mean = torch.tensor(preprocessing["mean"], device=device).view(3, 1, 1)
        self._std = torch.tensor(preprocessing["std"], device=device).view(3, 1, 1)
        self._device = torch.device(device)
        self._batch_size = batch_size

    @torch.no_grad()
    def image_features(self, images: Tensor) -> Tensor:
        """Features of pictures, each resized as a whole to the network's size (nothing is cropped).

        Args:
            images: (N, 3, H, W) uint8, N >= 1.

        Returns:
            (N, D) float32, L2-normalised.

        Raises:
            ValueError: If shape or type differ.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
            raise ValueError(f"Expected pictures (N, 3, H, W) in uint8, got {tuple(images.shape)} in {images.dtype}.")
        return torch.cat([self._encode(batch) for batch in torch.split(images, self._batch_size)])

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Features (N, D) of N prompts, float32, L2-normalised.

        Raises:
            ValueError: If there is no prompt.
        """
        if isinstance(prompts, str) or len(prompts) == 0:
            raise ValueError("Expected a list of at least one prompt.")
        tokens: Tensor = self._tokenize(list(prompts)).to(self._device)
        batches = torch.split(tokens, self._batch_size)
        return torch.cat([self._network.encode_text(batch, normalize=True) for batch in batches])

    def _encode(self, images: Tensor) -> Tensor:
        pictures = images.to(self._device).float() / 255
        if pictures.shape[-2:] != self._size:
            # Bicubic overshoots at edges; a picture has no values outside of 0..1.
            pictures = F.interpolate(pictures, self._size, mode="bicubic", antialias=True).clamp(0, 1)
        features: Tensor = self._network.encode_image((pictures - self._mean) / self._std, normalize=True)
        return features


def _model_name(model: str | os.PathLike[str]) -> str:
    """What open_clip calls the model, after checking that a directory is one."""
    name = os.fspath(model)
    if name.startswith(_HUB):
        return name
    folder = Path(name.removeprefix(_LOCAL))
    if not (folder / "open_clip_config.json").is_file():
        raise InputError(
            f"{folder} is no scoring model: give a directory with open_clip_config.json, or {_HUB}<owner>/<model>."
        )
    return f"{_LOCAL}{folder}"
