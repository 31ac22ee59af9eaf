"""One list of inputs and seeds, on which policies are compared: pictures, features, cached outcomes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from autotune.core.errors import RunFailed, reason_of
from autotune.evaluation.inputs import Row
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
        alignment: (n,) cosine of each picture with its prompt; None where there are no prompts.
        by_scorer: (n, E), the image-text model's features, where there are prompts. This and ``coarse`` are None
            unless anchors are asked for.
        coarse: (n, D) features of the pictures after :func:`autotune.quality.coarse`.
    """

    features: Tensor
    alignment: Tensor | None = None
    by_scorer: Tensor | None = None
    coarse: Tensor | None = None

    @staticmethod
    def of(
        pictures: Tensor,
        text: Tensor | None,
        scorer: Features | None,
        network: ImageFeatures | None = None,
        *,
        anchors: bool = False,
    ) -> Judged:
        """Judge pictures (n, 3, H, W) uint8 whose prompts, if they have any, have the features ``text`` (n, E).

        Args:
            pictures: The pictures.
            text: By ``scorer``; None where there are no prompts.
            scorer: Image and text features; None where neither are needed.
            network: Image features that distances are taken in; None takes the scorer's.
            anchors: Note what :meth:`baseline` needs.
        """
        judge = network or scorer
        assert judge is not None, "somebody judges"
        seen = None if scorer is None or text is None else scorer.image_features(pictures)
        features = seen if seen is not None and network is None else judge.image_features(pictures)
        alignment = None if seen is None or text is None else prompt_alignment(seen, text).cpu()
        judged = Judged(features.cpu(), alignment)
        if not anchors:
            return judged
        bad = judge.image_features(coarse(pictures))
        return replace(judged, by_scorer=None if seen is None else seen.cpu(), coarse=bad.cpu())

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

    def baseline(self, text: Tensor | None, keys: Sequence[str]) -> Baseline:
        """What the full run's pictures, judged with their anchors, are to all others of the same inputs.

        Args:
            text: (N, E) features of the prompts, if there are any.
            keys: Of the N inputs.
        """
        assert self.coarse is not None, "the full run is judged with its anchors"
        chance = None
        if text is not None and self.by_scorer is not None:
            chance = shuffled_alignment(self.by_scorer.double(), text.cpu().double())
        return Baseline(self.evaluation, self.coarse, chance, tuple(keys))


class Evaluator:
    """Evaluates policies on the same inputs and seeds, each policy once.

    Args:
        pictures: Makes the pictures of a policy, one per row and in their order, in batches (n, 3, H, W) uint8
            of which one is held at a time.
        scorer: Image and text features; None where prompts play no part and a network sees the pictures.
        rows: The N inputs. Their prompts are scored where all have one.
        reference: Features that good pictures have; None takes the full run's own on these very inputs, which
            suits objectives that give the distance no weight.
        full: The full run's policy; scores are relative to it.
        cache: Folder that keeps outcomes between runs. It must belong to these inputs, seeds
            and settings alone.
        network: Image features that the distance to the reference is taken in; None takes the scorer's.
        distance: Estimator of that distance.
        weights: Of the objective's terms.
        text: Whether alignment with the prompts is measured, which takes a scorer.

    Raises:
        InputError: The full run's pictures cannot be told from bad ones: reference or scorer do not suit them.
    """

    def __init__(
        self,
        pictures: Callable[[Policy], Pictures],
        scorer: Features | None,
        rows: Sequence[Row],
        reference: Reference | None,
        full: Policy,
        cache: Path,
        *,
        network: ImageFeatures | None = None,
        distance: str = DISTANCE,
        weights: Weights = QUALITY,
        text: bool = True,
    ) -> None:
        self.rows = tuple(rows)
        self.keys = tuple(row.key for row in rows)
        self._pictures = pictures
        self._scorer = scorer
        self._network = network
        self._cache = cache
        self._text = scorer.text_features([row.prompt or "" for row in rows]) if scorer is not None and text else None
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
        if len(outcome.evaluation) == len(self.rows):
            _save(outcome, path)
        return outcome

    def kept(self, policy: Policy) -> Outcome | None:
        """What an earlier call found, if it is kept here."""
        path = self._path(policy)
        return _load(path) if path.is_file() else None

    def probe(self, policy: Policy, beyond: int = 0) -> Evaluation:
        """Make and judge pictures of the policy once more, until there are more than ``beyond``; nothing is kept."""
        outcome, _ = self._judged(policy, should_prune=lambda partial: len(partial.features) > beyond)
        return outcome.evaluation

    def _path(self, policy: Policy) -> Path:
        return self._cache / f"{policy.key}.safetensors"

    def _baseline(self, full: Policy) -> tuple[Outcome, Baseline]:
        """The full run with the anchors of what is bad, which take its pictures too."""
        path = self._cache / "anchors.safetensors"
        if not (path.is_file() and self._path(full).is_file()):
            outcome, judged = self._judged(full, anchors=True)
            baseline = judged.baseline(self._text, self.keys)
            _save(outcome, self._path(full))
            write_tensors(path, known(coarse=baseline.coarse, chance=baseline.chance), {})
        anchors = _tensors(path)
        outcome = _load(self._path(full))
        return outcome, Baseline(outcome.evaluation, anchors["coarse"], anchors.get("chance"), self.keys)

    def _judged(
        self, policy: Policy, *, anchors: bool = False, should_prune: Callable[[Evaluation], bool] | None = None
    ) -> tuple[Outcome, Judged]:
        """Pictures made and judged batch by batch, until ``should_prune`` says so."""
        judged, previews = [], []
        made = 0
        with closing(self._pictures(policy)) as batches:
            for batch in batches:
                text = None if self._text is None else self._text[made : made + len(batch)]
                judged.append(Judged.of(batch, text, self._scorer, self._network, anchors=anchors))
                if made < PREVIEW:
                    previews.append(batch[: PREVIEW - made].clone())
                made += len(batch)
                if (
                    should_prune is not None
                    and made < len(self.rows)
                    and should_prune(Judged.joined(judged).evaluation)
                ):
                    break
        run = Judged.joined(judged)
        return Outcome(run.evaluation, torch.cat(previews)), run


def _save(outcome: Outcome, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    evaluation = outcome.evaluation
    tensors = known(features=evaluation.features, alignment=evaluation.alignment, preview=outcome.preview)
    # An interrupt must not leave half an outcome that the next run would trust: the file appears when it is complete.
    write_tensors(path, tensors, {})


def _load(path: Path) -> Outcome:
    tensors = _tensors(path)
    return Outcome(Evaluation(tensors["features"], tensors.get("alignment")), tensors["preview"])


def _tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise RunFailed(
            f"{path} is damaged ({reason_of(error)}); delete it and repeat the same command, which makes it again"
        ) from error
    return tensors


def known(**tensors: Tensor | None) -> dict[str, Tensor]:
    """Those that are not None, for files that hold nothing else."""
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
