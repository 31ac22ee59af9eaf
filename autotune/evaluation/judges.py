"""Who judges the pictures of a search: an image-text model, a network for the distance, and the panel of judges."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.evaluation.content_fingerprint import content_fingerprint
from autotune.evaluation.evaluator import ERROR_PICTURES, Evaluator
from autotune.evaluation.exact_runs import Make
from autotune.evaluation.inputs import Row
from autotune.evaluation.references import Size, kept_reference, shows_textures
from autotune.options import JudgeOptions
from autotune.options.given import AnyReference
from autotune.policy import Policy
from autotune.quality import QUALITY, Gaussian, Reference, Scorer, estimator, feature_network
from autotune.quality.extractor import Features, ImageFeatures
from autotune.quality.jury import LoadedJudge, load_judges, probe_pictures, suited
from autotune.quality.objective import DISTANCE
from autotune.quality.panel import (
    ALIGNMENT,
    DEFAULT_PANEL,
    DISTANCE_TEXTURES,
    ERROR,
    FIDELITY,
    JUDGES,
    Panel,
    Sources,
    parse_judges,
)
from autotune.quality.panel import DISTANCE as DISTANCE_JUDGE
from autotune.quality.terms import flat

_MOST_PAIRS = 32

DEFAULT_SCORER = "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K"


@dataclass(frozen=True)
class FlatFeatures:
    """A judge of distributions as a network: features of crops are rows of their own."""

    judge: LoadedJudge

    def image_features(self, images: Tensor) -> Tensor:
        return flat(self.judge.features(images))


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
        panel: The judges of the objective, with the weights of their terms.
        text: Whether alignment with prompts is measured.
        further: Those of the panel that look at pictures themselves.
        error_pictures: How many of the first pictures are compared with the exact run's.
    """

    scorer: Features | None
    scorer_fingerprint: str | None
    network: ImageFeatures | None
    network_fingerprint: str | None
    estimator: str
    panel: Panel
    text: bool = True
    further: tuple[LoadedJudge, ...] = ()
    error_pictures: int = ERROR_PICTURES

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

    @property
    def referring(self) -> Mapping[str, ImageFeatures]:
        """Networks that need a reference in their features, by judge."""
        wanted = {DISTANCE_JUDGE: self.distance_network} if self.panel.weight(DISTANCE_JUDGE) else {}
        return wanted | {judge.name: FlatFeatures(judge) for judge in self.further if judge.kind == "distribution"}

    def text_features(self, rows: Sequence[Row]) -> Tensor | None:
        """The scorer's features (N, E) of N rows' prompts; None where alignment is not measured."""
        return self.scorer.text_features([row.prompt or "" for row in rows]) if self.scorer and self.text else None

    def references(self, given: AnyReference | None, fingerprint: str, size: Size) -> dict[str, Reference]:
        """The references in these judges' features, by judge; where one is missing the full run's own pictures serve.

        Statistics are of the features that distances are taken in. In those of another judge they may lie beside the
        file, as ``STEM-JUDGE.safetensors``.

        Args:
            given: Statistics or features, a file of them, a folder of pictures, or None.
            fingerprint: What is in it, as :func:`autotune.evaluation.content_fingerprint.content_fingerprint` says.
            size: Height and width of the pictures compared with it.

        Raises:
            InputError: it cannot be read, or holds too few pictures.
        """
        if given is None:
            return {}
        if isinstance(given, Reference | Gaussian):
            return {DISTANCE_JUDGE: Reference(given) if isinstance(given, Gaussian) else given}
        path = Path(given)
        first = kept_reference(path, fingerprint, self.distance_network, self.distance_fingerprint, size)
        found = {DISTANCE_JUDGE: first}
        for name, network in self.referring.items():
            if name != DISTANCE_JUDGE and path.is_dir():
                by = f"{name} of {self.distance_fingerprint}"
                found[name] = kept_reference(path, fingerprint, network, by, size)
        return found | {name: Reference.load(file) for name, file in self._beside(given).items()}

    def beside_fingerprints(self, given: AnyReference | None) -> tuple[str, ...]:
        """What the files beside a file of statistics are called and what is in them, of those that judges look at."""
        return tuple(f"{name} {content_fingerprint(file)}" for name, file in sorted(self._beside(given).items()))

    def _beside(self, given: AnyReference | None) -> dict[str, Path]:
        """Files of statistics in other judges' features beside that of the reference, by judge."""
        if given is None or isinstance(given, Reference | Gaussian) or not Path(given).is_file():
            return {}
        files = {name: beside_statistics(Path(given), name) for name in self.referring if name != DISTANCE_JUDGE}
        return {name: file for name, file in files.items() if file.is_file()}

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
        pictures: Make,
        rows: Sequence[Row],
        references: Mapping[str, Reference],
        full: Policy,
        cache: Path,
        *,
        intent: Callable[[Policy], Policy] | None = None,
        make_exact: Make | None = None,
    ) -> Evaluator:
        """An evaluator with these judges; see :class:`autotune.evaluation.evaluator.Evaluator`."""
        return Evaluator(
            pictures,
            self.scorer,
            rows,
            references.get(DISTANCE_JUDGE),
            full,
            cache,
            network=self.network,
            distance=self.estimator,
            weights=self.panel,
            text=self.text,
            further=self.further,
            references=references,
            error_pictures=self.error_pictures,
            intent=intent,
            make_exact=make_exact,
        )


def beside_statistics(path: Path, judge: str) -> Path:
    """Where statistics in another judge's features lie beside a file of statistics."""
    return path.with_name(f"{path.stem}-{judge}.safetensors")


def judges(
    options: JudgeOptions,
    *,
    text: bool = True,
    device: str = "cpu",
    size: tuple[int, int] = (64, 64),
    reference: AnyReference | None = None,
    images: int = 0,
) -> Judges:
    """Check the choice, load what it names and try it out.

    Args:
        options: The choice. Without a scorer one is taken from the hub where it is needed: for alignment that has a
            weight, or because no network is named.
        text: Whether pictures have prompts that they may match better or worse; see :func:`panel_for`.
        device: Where the models run.
        size: Height and width of the pictures.
        reference: What good pictures look like. Unless options name them, textures are compared with real ones only:
            whether guidance that changes them makes pictures better, the full run's own pictures cannot say.
        images: Pictures of each run, by which there are more or fewer pairs; see :func:`usual_pairs`.

    Raises:
        InputError: Something cannot be used or had, or gives numbers that are none.
    """
    panel = panel_for(options, text=text)
    scorer, network = options.scorer, options.network
    name = estimator(options.distance or DISTANCE).name
    if network is not None and not text:
        # There is nothing left for it to see.
        scorer = None
    elif scorer is None and (network is None or panel.weight(ALIGNMENT)):
        scorer = DEFAULT_SCORER
    scorer_fingerprint = None if scorer is None else content_fingerprint(scorer)
    network_fingerprint = None if network is None else content_fingerprint(network)
    loaded = Scorer(scorer, device=device) if isinstance(scorer, str | os.PathLike) else scorer
    seen_by = feature_network(network, device) if isinstance(network, str | os.PathLike) else network
    for who, judge in (("scorer", loaded), ("network", seen_by)):
        if judge is not None and not judge.image_features(probe_pictures(size)).isfinite().all():
            raise InputError(f"the {who} {content_fingerprint(judge)} gives features that are not finite; take another")
    sources = Sources(loaded, seen_by or loaded, device)
    panel = suited(panel, sources, size, asked=options.judges is not None)
    if options.judges is None and panel.weight(DISTANCE_TEXTURES) and not _has_textures(reference, size):
        panel = panel.without(DISTANCE_TEXTURES)
    return Judges(
        scorer=loaded,
        scorer_fingerprint=scorer_fingerprint,
        network=seen_by,
        network_fingerprint=network_fingerprint,
        estimator=name,
        panel=panel,
        text=text and scorer is not None,
        further=load_judges(panel, sources, size),
        error_pictures=usual_pairs(images) if options.error_pictures is None else options.error_pictures,
    )


def usual_pairs(images: int) -> int:
    """Of so many pictures those that are compared with an exact run's: a quarter, from 8 to 32.

    By 32 pairs differences of errors and of drifts are wrong by half of what they are by eight
    (``studies.proxy.validity``). Of few pictures exact runs would soon cost more than all others.
    """
    return max(ERROR_PICTURES, min(images // 4, _MOST_PAIRS))


def _has_textures(reference: AnyReference | None, size: Size) -> bool:
    if reference is None or isinstance(reference, Reference | Gaussian):
        return False
    path = Path(reference)
    return beside_statistics(path, DISTANCE_TEXTURES).is_file() or shows_textures(path, size)


def panel_for(options: JudgeOptions, *, text: bool = True) -> Panel:
    """The panel that options stand for; without text there is no alignment to judge.

    Raises:
        InputError: A weight is of what there is not, or nothing is left to judge by.
    """
    fd, clip = options.weights
    if options.objective == "fidelity":
        weights = {FIDELITY: 1.0}
    elif options.judges is not None:
        weights = parse_judges(options.judges)
    elif (fd, clip) != (None, None):
        # As in releases before panels, when these weights were all there was to choose.
        weights = {
            DISTANCE_JUDGE: QUALITY.fd if fd is None else fd,
            ALIGNMENT: QUALITY.clip if clip is None else clip,
        }
    else:
        weights = dict(DEFAULT_PANEL)
    if not text:
        weights = _without_text(options, weights)
    measured = any(JUDGES[name].kind == "paired" and name != FIDELITY for name in weights if name in JUDGES)
    if options.error_ceiling is not None and not measured:
        weights[ERROR] = 0.0
    return Panel(weights, options.error_ceiling)


def _without_text(options: JudgeOptions, weights: Mapping[str, float]) -> dict[str, float]:
    """Weights of those who judge without prompts."""
    matching = [name for name in weights if name in JUDGES and JUDGES[name].kind == "alignment"]
    if options.weight_clip is not None:
        raise InputError(
            "weight_clip weighs the alignment with prompts, and the inputs have no prompts that differ; leave it out"
        )
    if options.judges is not None and matching:
        raise InputError(
            f"judge {matching[0]} matches pictures with prompts, and the inputs have no prompts that differ; leave it"
            " out"
        )
    rest = {name: weight for name, weight in weights.items() if name not in matching}
    if not any(rest.values()):
        raise InputError("without prompts that differ the distance is all there is to judge by; give it a weight")
    return rest
