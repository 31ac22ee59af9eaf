"""How well pictures match their prompts, and how well they would by chance.

All features are L2-normalised, as ``Scorer`` gives them, so that a product is a cosine.
"""

from __future__ import annotations

from torch import Tensor

__all__ = ["prompt_alignment", "shuffled_alignment"]


def prompt_alignment(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Cosine between each picture and its own prompt.

    Args:
        image_features: (N, D).
        text_features: (N, D), row i belonging to picture i.

    Returns:
        (N,), in -1..1, higher is better.

    Raises:
        ValueError: If the shapes differ.
    """
    _check(image_features, text_features)
    return (image_features * text_features).sum(1)


def shuffled_alignment(image_features: Tensor, text_features: Tensor) -> Tensor:
    """Mean cosine between each picture and all the *other* prompts: what a blind model would score.

    Returns:
        (N,); its mean is the mean over all mismatched pairs.

    Raises:
        ValueError: If the shapes differ or there are fewer than two pairs.
    """
    matched = prompt_alignment(image_features, text_features)
    others = len(matched) - 1
    if others < 1:
        raise ValueError("The chance level needs at least two prompts: a single one has no mismatched pair.")
    return (image_features @ text_features.sum(0) - matched) / others


def _check(image_features: Tensor, text_features: Tensor) -> None:
    if image_features.shape != text_features.shape or image_features.ndim != 2:
        raise ValueError(
            f"Image features {tuple(image_features.shape)} and text features {tuple(text_features.shape)} "
            "must both be (N, D), one row per prompt."
        )
