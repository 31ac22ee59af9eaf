"""Who judges the pictures of a search: an image-text model, a network for the distance, and the objective's weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.evaluation.content_fingerprint import content_fingerprint
from autotune.evaluation.evaluator import Evaluator, Pictures
from autotune.evaluation.inputs import Row
from autotune.evaluation.references import Size, kept_reference
from autotune.options import JudgeOptions
from autotune.options.given import AnyReference
from autotune.policy import Policy
from autotune.quality import FIDELITY, QUALITY, Gaussian, Reference, Scorer, Weights, estimator, feature_network
from autotune.quality.extractor import Features, ImageFeatures
from autotune.quality.objective import DISTANCE

DEFAULT_SCORER = "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


@dataclass(frozen=True)
class Judges:
    """Loaded judges.

    Attributes:
        scorer: Image-text model, for alignment and, without a network, for all image features; None where there is
            neither to do.
        scorer_fingerprint: What it is called and what is in it.
        network: Takes the scorer's place in distances; None leaves them to the scorer.
        network_fingerprint: Likewise.
        estimator: Distance to the reference.
        weights: Of the objective's terms.
        text: Whether alignment with prompts is measured.
    """

    scorer: Features | None
    scorer_fingerprint: str | None
    network: ImageFeatures | None
    network_fingerprint: str | None
    estimator: str
    weights: Weights
    text: bool = True

    @property
    def scorer_name(self) -> str | None:
        return None if self.scorer_fingerprint is None else self.scorer_fingerprint.partition("@")[0]

    @property
    def network_name(self) -> str | None:
        return None if self.network_fingerprint is None else self.network_fingerprint.partition("@")[0]

    @property
    def distance_network(self) -> ImageFeatures:
        """What image features are taken in."""
        judge = self.network or self.scorer
        assert judge is not None, "somebody judges"
        return judge

    @property
    def distance_fingerprint(self) -> str:
        return self.network_fingerprint or self.scorer_fingerprint or ""

    def text_features(self, rows: Sequence[Row]) -> Tensor | None:
        """The scorer's features (N, E) of N rows' prompts; None where alignment is not measured."""
        return self.scorer.text_features([row.prompt or "" for row in rows]) if self.scorer and self.text else None

    def reference(self, given: AnyReference | None, fingerprint: str, size: Size) -> Reference | None:
        """The reference in these judges' features; None where the full run's own pictures serve as one.

        Args:
            given: Statistics or features, a file of them, a folder of pictures, or None.
            fingerprint: What is in it, as :func:`autotune.evaluation.content_fingerprint.content_fingerprint` says.
            size: Height and width of the pictures compared with it.

        Raises:
            InputError: it cannot be read, or holds too few pictures.
        """
        if given is None or isinstance(given, Reference):
            return given
        if isinstance(given, Gaussian):
            return Reference(given)
        return kept_reference(Path(given), fingerprint, self.distance_network, self.distance_fingerprint, size)

    def check(self, reference: Reference, size: Size) -> None:
        """Find out now whether distances to the reference can be measured, not after all pictures are made.

        Raises:
            InputError: its features are of another network, or it lacks those that the estimator needs.
        """
        estimator(self.estimator).against(reference)
        dimensions = self.distance_network.image_features(torch.zeros(1, 3, *size, dtype=torch.uint8)).shape[1]
        if len(reference.gaussian.mean) != dimensions:
            raise InputError(
                f"the reference has {len(reference.gaussian.mean)} dimensions and features have {dimensions}: they come"
                " from different networks; give a folder of pictures as reference, or the network it was made with"
            )

    def evaluator(
        self,
        pictures: Callable[[Policy], Pictures],
        rows: Sequence[Row],
        reference: Reference | None,
        full: Policy,
        cache: Path,
    ) -> Evaluator:
        """An evaluator with these judges; see :class:`autotune.evaluation.evaluator.Evaluator`."""
        return Evaluator(
            pictures,
            self.scorer,
            rows,
            reference,
            full,
            cache,
            network=self.network,
            distance=self.estimator,
            weights=self.weights,
            text=self.text,
        )


def judges(options: JudgeOptions, *, text: bool = True, device: str = "cpu") -> Judges:
    """Check the choice and load what it names.

    Args:
        options: The choice. Without a scorer one is taken from the hub where it is needed: for alignment that has a
            weight, or because no network is named.
        text: Whether pictures have prompts that they may match better or worse; see :func:`objective_weights`.
        device: Where the models run.

    Raises:
        InputError: Something cannot be used or had.
    """
    weights = objective_weights(options, text=text)
    scorer, network = options.scorer, options.network
    name = estimator(options.distance or DISTANCE).name
    if network is not None and not text:
        # There is nothing left for it to see.
        scorer = None
    elif scorer is None and (network is None or weights.clip):
        scorer = DEFAULT_SCORER
    scorer_fingerprint = None if scorer is None else content_fingerprint(scorer)
    network_fingerprint = None if network is None else content_fingerprint(network)
    return Judges(
        scorer=Scorer(scorer, device=device) if isinstance(scorer, str | os.PathLike) else scorer,
        scorer_fingerprint=scorer_fingerprint,
        network=feature_network(network, device) if isinstance(network, str | os.PathLike) else network,
        network_fingerprint=network_fingerprint,
        estimator=name,
        weights=weights,
        text=text and scorer is not None,
    )


def objective_weights(options: JudgeOptions, *, text: bool = True) -> Weights:
    """The weights that an objective by name stands for; without text there is no alignment to give one to.

    Raises:
        InputError: A weight is of what there is not, or nothing is left to judge by.
    """
    if options.objective == "fidelity":
        return FIDELITY
    fd, clip = options.weights
    if not text and clip is not None:
        raise InputError(
            "weight_clip weighs the alignment with prompts, and the inputs have no prompts that differ; leave it out"
        )
    if not text and fd == 0:
        raise InputError("without prompts that differ the distance is all there is to judge by; give it a weight")
    return Weights(QUALITY.fd if fd is None else fd, 0.0 if not text else QUALITY.clip if clip is None else clip)
