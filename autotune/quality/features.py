"""Image and text features of an open_clip model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality.extractor import FeatureNetwork, Preprocessing
from autotune.quality.tensors import check_judged

__all__ = ["Scorer"]

_HUB, _LOCAL = "hf-hub:", "local-dir:"


class Scorer(FeatureNetwork):
    """A frozen open_clip model in fp32 that turns pictures and prompts into comparable, L2-normalised features.

    Args:
        model: A directory in open_clip's format (with or without ``local-dir:``), ``hf-hub:<id>``, or
            ``<architecture>/<weights>`` as ``open_clip.list_pretrained()`` pairs them.
        device: Where the model runs and the features stay.
        batch_size: Pictures or prompts per forward pass.

    Raises:
        InputError: If the directory lacks a configuration or weights, or the weights cannot be had.
    """

    def __init__(
        self, model: str | os.PathLike[str], *, device: str | torch.device = "cpu", batch_size: int = 64
    ) -> None:
        import open_clip

        name, weights = _source(model)
        try:
            # Without weights open_clip only warns, and would score with a random network.
            network = open_clip.create_model(
                name, pretrained=weights, precision="fp32", device=device, require_pretrained=True
            )
            self._tokenize = open_clip.get_tokenizer(name)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"Cannot load the scoring model {os.fspath(model)}: {error}") from error
        self._model = network.eval().requires_grad_(False)
        config = network.visual.preprocess_cfg
        size = config["size"]
        preprocess = Preprocessing(
            size=(size, size) if isinstance(size, int) else (int(size[0]), int(size[1])),
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
        )
        super().__init__(os.fspath(model), self._encode, preprocess, device=device, batch_size=batch_size)

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Features (N, D) of N prompts, float32, L2-normalised.

        Raises:
            ValueError: If there is no prompt.
            InputError: If a feature is not finite.
        """
        if isinstance(prompts, str) or len(prompts) == 0:
            raise ValueError("Expected a list of at least one prompt.")
        tokens: Tensor = self._tokenize(list(prompts)).to(self.device)
        batches = torch.split(tokens, self._batch_size)
        return check_judged(torch.cat([self._model.encode_text(batch, normalize=True) for batch in batches]), self.name)

    def _encode(self, pictures: Tensor) -> Tensor:
        features: Tensor = self._model.encode_image(pictures, normalize=True)
        return features


def _source(model: str | os.PathLike[str]) -> tuple[str, str | None]:
    """What open_clip calls the model and, where the name does not say it, its weights."""
    import open_clip

    name = os.fspath(model)
    if name.startswith(_HUB):
        return name, None
    folder = Path(name.removeprefix(_LOCAL))
    if (folder / "open_clip_config.json").is_file():
        return f"{_LOCAL}{folder}", None
    architecture, _, weights = name.partition("/")
    if (architecture, weights) in open_clip.list_pretrained():
        return architecture, weights
    raise InputError(
        f"{folder} is no scoring model: give a directory with open_clip_config.json, {_HUB}<owner>/<model>, "
        "or <architecture>/<weights> as open_clip.list_pretrained() pairs them."
    )
