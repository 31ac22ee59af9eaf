"""One list of prompts and seeds, on which policies are compared: pictures, features, cached outcomes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from autotune.policy import Policy
from autotune.quality import Evaluation, Gaussian, Objective

PREVIEW = 16
"""Pictures kept of every outcome, for people to look at."""


class Features(Protocol):
    """What scoring needs of an image-text model; :class:`autotune.quality.Scorer` is one."""

    def image_features(self, images: Tensor) -> Tensor: ...

    def text_features(self, prompts: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a policy's pictures scored, and the first :data:`PREVIEW` of them (uint8, (n, 3, H, W))."""

    evaluation: Evaluation
    preview: Tensor


class Bench:
    """Evaluates policies on the same prompts and seeds, each policy once.

    Args:
        pictures: Makes the pictures (N, 3, H, W) uint8 of a policy, one per prompt and in their order.
        scorer: Image and text features.
        prompts: The N prompts.
        reference: Features that good pictures have.
        full: The full run's policy; scores are relative to it.
        cache: Folder that keeps outcomes between runs. It must belong to these prompts, seeds
            and settings alone.
    """

    def __init__(
        self,
        pictures: Callable[[Policy], Tensor],
        scorer: Features,
        prompts: Sequence[str],
        reference: Gaussian,
        full: Policy,
        cache: Path,
        *,
        weight_fd: float = 1.0,
        weight_clip: float = 1.0,
    ) -> None:
        self.prompts = tuple(prompts)
        self._pictures = pictures
        self._scorer = scorer
        self._cache = cache
        self._text = scorer.text_features(prompts)
        self.full = self.outcome(full)
        self.objective = Objective(
            reference, self.full.evaluation, self._text, weight_fd=weight_fd, weight_clip=weight_clip
        )

    def outcome(self, policy: Policy) -> Outcome:
        """Make and judge the policy's pictures, or read what an earlier call found."""
        path = self._cache / f"{policy.key}.safetensors"
        if path.is_file():
            return _load(path)
        pictures = self._pictures(policy)
        evaluation = Evaluation.of(self._scorer.image_features(pictures), self._text)
        outcome = Outcome(evaluation, pictures[:PREVIEW].clone())
        _save(outcome, path)
        return outcome


def _save(outcome: Outcome, path: Path) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete: an interrupt must not leave half an outcome that the next run would trust.
    part = path.with_suffix(".part")
    evaluation = outcome.evaluation
    tensors = {"features": evaluation.features, "alignment": evaluation.alignment, "preview": outcome.preview}
    save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, part)
    os.replace(part, path)


def _load(path: Path) -> Outcome:
    from safetensors.torch import load_file

    tensors = load_file(path)
    return Outcome(Evaluation(tensors["features"], tensors["alignment"]), tensors["preview"])
