"""One list of prompts and seeds, on which policies are compared: pictures, features, cached outcomes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from autotune.core.errors import RunFailed, reason_of
from autotune.policy import Policy
from autotune.quality import (
    QUALITY,
    Baseline,
    Evaluation,
    Objective,
    Reference,
    Weights,
    coarse,
    prompt_alignment,
    shuffled_alignment,
)
from autotune.quality.objective import DISTANCE
from autotune.quality.tensors import write_tensors

PREVIEW = 16
"""Pictures kept of every outcome, for people to look at."""

Pictures = Generator[Tensor, None, None]
"""Pictures (n, 3, H, W) uint8 in batches. Closing it early takes the policy off the pipeline."""


class ImageFeatures(Protocol):
    """What a distance needs of a network; every :class:`autotune.quality.FeatureNetwork` is one."""

    def image_features(self, images: Tensor) -> Tensor: ...


class Features(ImageFeatures, Protocol):
    """What scoring needs of an image-text model; :class:`autotune.quality.Scorer` is one."""

    def text_features(self, prompts: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a policy's pictures scored, and the first :data:`PREVIEW` of them (uint8, (n, 3, H, W))."""

    evaluation: Evaluation
    preview: Tensor


@dataclass(frozen=True, eq=False)
class Judged:
    """What judges say of n pictures.

    Attributes:
        features: (n, D), what distances are taken in.
        alignment: (n,) cosine of each picture with its prompt.
        by_scorer: (n, E), the image-text model's features. This and ``coarse`` are None unless anchors are asked for.
        coarse: (n, D) features of the pictures after :func:`autotune.quality.coarse`.
    """

    features: Tensor
    alignment: Tensor
    by_scorer: Tensor | None = None
    coarse: Tensor | None = None

    @staticmethod
    def of(
        pictures: Tensor, text: Tensor, scorer: Features, network: ImageFeatures | None = None, *, anchors: bool = False
    ) -> Judged:
        """Judge pictures (n, 3, H, W) uint8 whose prompts have the features ``text`` (n, E).

        Args:
            pictures: The pictures.
            text: By ``scorer``.
            scorer: Image and text features.
            network: Image features that distances are taken in; None takes the scorer's.
            anchors: Note what :meth:`baseline` needs.
        """
        seen = scorer.image_features(pictures)
        features = seen if network is None else network.image_features(pictures)
        judged = Judged(features.cpu(), prompt_alignment(seen, text).cpu())
        if not anchors:
            return judged
        bad = (network or scorer).image_features(coarse(pictures))
        return replace(judged, by_scorer=seen.cpu(), coarse=bad.cpu())

    @staticmethod
    def joined(batches: Sequence[Judged]) -> Judged:
        """All of one run, from its batches in their order."""
        columns = {
            field.name: [tensor for tensor in (getattr(batch, field.name) for batch in batches) if tensor is not None]
            for field in fields(Judged)
        }
        return Judged(**{name: torch.cat(tensors) for name, tensors in columns.items() if tensors})

    @property
    def evaluation(self) -> Evaluation:
        return Evaluation(self.features, self.alignment)

    def baseline(self, text: Tensor, prompts: Sequence[str]) -> Baseline:
        """What the full run's pictures, judged with their anchors, are to all others of the same prompts.

        Args:
            text: (N, E) features of the prompts.
            prompts: The N prompts.
        """
        assert self.by_scorer is not None and self.coarse is not None, "the full run is judged with its anchors"
        chance = shuffled_alignment(self.by_scorer.double(), text.cpu().double())
        return Baseline(self.evaluation, self.coarse, chance, tuple(prompts))


class Evaluator:
    """Evaluates policies on the same prompts and seeds, each policy once.

    Args:
        pictures: Makes the pictures of a policy, one per prompt and in their order, in batches (n, 3, H, W) uint8
            of which one is held at a time.
        scorer: Image and text features.
        prompts: The N prompts.
        reference: Features that good pictures have; None takes the full run's own on these very prompts, which
            suits objectives that give the distance no weight.
        full: The full run's policy; scores are relative to it.
        cache: Folder that keeps outcomes between runs. It must belong to these prompts, seeds
            and settings alone.
        network: Image features that the distance to the reference is taken in; None takes the scorer's.
        distance: Estimator of that distance.
        weights: Of the objective's terms.

    Raises:
        InputError: The full run's pictures cannot be told from bad ones: reference or scorer do not suit them.
    """

    def __init__(
        self,
        pictures: Callable[[Policy], Pictures],
        scorer: Features,
        prompts: Sequence[str],
        reference: Reference | None,
        full: Policy,
        cache: Path,
        *,
        network: ImageFeatures | None = None,
        distance: str = DISTANCE,
        weights: Weights = QUALITY,
    ) -> None:
        self.prompts = tuple(prompts)
        self._pictures = pictures
        self._scorer = scorer
        self._network = network
        self._cache = cache
        self._text = scorer.text_features(prompts)
        self.full_policy = full
        self.full, baseline = self._baseline(full)
        if reference is None:
            reference = Reference.of(baseline.full.features, shrink=True)
        self.objective = Objective(reference, baseline, distance=distance, weights=weights)

    def outcome(self, policy: Policy, should_prune: Callable[[Evaluation], bool] | None = None) -> Outcome:
        """Make and judge the policy's pictures, or read what an earlier call found.

        Args:
            policy: What to evaluate.
            should_prune: Asked after every batch but the last, with the evaluation of the pictures made so far. Where
                it says so no more are made, and the outcome, of these alone, is not kept.
        """
        path = self._path(policy)
        if path.is_file():
            return _load(path)
        outcome, _ = self._judged(policy, should_prune=should_prune)
        if len(outcome.evaluation.alignment) == len(self.prompts):
            _save(outcome, path)
        return outcome

    def kept(self, policy: Policy) -> Outcome | None:
        """What an earlier call found, if it is kept here."""
        path = self._path(policy)
        return _load(path) if path.is_file() else None

    def probe(self, policy: Policy, beyond: int = 0) -> Evaluation:
        """Make and judge pictures of the policy anew, until there are more than ``beyond``; nothing is kept."""
        outcome, _ = self._judged(policy, should_prune=lambda partial: len(partial.alignment) > beyond)
        return outcome.evaluation

    def _path(self, policy: Policy) -> Path:
        return self._cache / f"{policy.key}.safetensors"

    def _baseline(self, full: Policy) -> tuple[Outcome, Baseline]:
        """The full run with the anchors of what is bad, which take its pictures too."""
        path = self._cache / "anchors.safetensors"
        if not (path.is_file() and self._path(full).is_file()):
            outcome, judged = self._judged(full, anchors=True)
            baseline = judged.baseline(self._text, self.prompts)
            _save(outcome, self._path(full))
            write_tensors(path, {"coarse": baseline.coarse, "chance": baseline.chance}, {})
        anchors = _tensors(path)
        outcome = _load(self._path(full))
        return outcome, Baseline(outcome.evaluation, anchors["coarse"], anchors["chance"], self.prompts)

    def _judged(
        self, policy: Policy, *, anchors: bool = False, should_prune: Callable[[Evaluation], bool] | None = None
    ) -> tuple[Outcome, Judged]:
        """Pictures made and judged batch by batch, until ``should_prune`` says so."""
        judged, previews = [], []
        made = 0
        with closing(self._pictures(policy)) as batches:
            for batch in batches:
                text = self._text[made : made + len(batch)]
                judged.append(Judged.of(batch, text, self._scorer, self._network, anchors=anchors))
                if made < PREVIEW:
                    previews.append(batch[: PREVIEW - made].clone())
                made += len(batch)
                if (
                    should_prune is not None
                    and made < len(self.prompts)
                    and should_prune(Judged.joined(judged).evaluation)
                ):
                    break
        run = Judged.joined(judged)
        return Outcome(run.evaluation, torch.cat(previews)), run


def _save(outcome: Outcome, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    evaluation = outcome.evaluation
    tensors = {"features": evaluation.features, "alignment": evaluation.alignment, "preview": outcome.preview}
    # An interrupt must not leave half an outcome that the next run would trust: the file appears when it is complete.
    write_tensors(path, tensors, {})


def _load(path: Path) -> Outcome:
    tensors = _tensors(path)
    return Outcome(Evaluation(tensors["features"], tensors["alignment"]), tensors["preview"])


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise RunFailed(
            f"{path} is damaged ({reason_of(error)}); delete it and repeat the same command, which makes it anew"
        ) from error
    return tensors
