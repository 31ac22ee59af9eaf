"""Judges that no search asks, of pictures of captions that none has seen.

The loss is the mean of three, as in :mod:`studies.proxy.validity`: the Frechet distance of EfficientNet-Lite0's
features to real pictures, in the 64 directions in which these vary most; alignment by a second CLIP; and the mean
distance, in EfficientNet's features, to the pictures of the exact run of the same intent. Each is 0 for the full run
and 1 for pictures of 16 pixels a side, or for alignment by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor

from autotune.core.interval import Interval
from autotune.evaluation.examples import Examples
from autotune.policy import Policy
from autotune.quality import (
    Baseline,
    Evaluation,
    Objective,
    Reference,
    Scorer,
    Weights,
    coarse,
    feature_network,
    shuffled_alignment,
)
from autotune.quality.bootstrap import interval, resampled, rows_of_prompt
from autotune.quality.fidelity import feature_distances
from autotune.quality.tensors import write_tensors
from autotune.workflows.setup import Setup
from studies.proxy.features import JUDGE_CLIP, JUDGE_NETWORK, real_pictures
from studies.shipped import BATCH

PARTS = ("distance", "alignment", "error")
# In all 1,280 directions a resample takes a second.
_DISTANCE = "frechet-subspace-64"
_RESAMPLES = 400


@dataclass(frozen=True, eq=False)
class Judged:
    """A policy's pictures before the judges.

    Attributes:
        evaluation: Features and alignments of N pictures.
        errors: (N,) distances in features to the exact run's pictures; 1 is what coarse pictures have on average.
        losses: By each of :data:`PARTS`.
    """

    evaluation: Evaluation
    errors: Tensor
    losses: tuple[float, float, float]

    @property
    def loss(self) -> float:
        """The mean of the three."""
        return sum(self.losses) / len(PARTS)


class Judges:
    """The full run, real pictures and the networks that compare others with them.

    Args:
        setup: Of a search with the same pipeline and full run.
        examples: The captions, and seeds.
        model: A shipped model's name.
        folder: Keeps what networks saw of each policy's pictures, and nothing of other captions.
        pictures: Makes a policy's pictures in batches; by default ``setup`` does.
    """

    def __init__(
        self,
        setup: Setup,
        examples: Examples,
        model: str,
        folder: Path,
        *,
        pictures: Callable[[Policy], Iterable[Tensor]] | None = None,
    ) -> None:
        self._setup, self._examples, self._folder = setup, examples, folder
        self._pictures = pictures or (lambda policy: setup.pictures(policy, examples.rows, examples.seeds))
        self._clip, self._network = Scorer(JUDGE_CLIP), feature_network(JUDGE_NETWORK)
        self._text = self._clip.text_features(examples.prompts)
        folder.mkdir(parents=True, exist_ok=True)
        full = self._seen(setup.full)
        evaluation = self._evaluation(full)
        chance = shuffled_alignment(full["clip"].double(), self._text.cpu().double())
        baseline = Baseline(evaluation, full["coarse"], chance, examples.prompts)
        real = Reference.of(self._network.image_features(real_pictures(model)).cpu())
        self._objectives = [
            Objective(real, baseline, distance=_DISTANCE, weights=weights) for weights in (Weights(1, 0), Weights(0, 1))
        ]
        self._unit = feature_distances(full["coarse"], full["network"]).mean()
        self._rows = rows_of_prompt(examples.prompts)

    def judged(self, policy: Policy) -> Judged:
        """What the judges see of a policy's pictures and its exact run's, which are made where that is not kept."""
        seen, exact = self._seen(policy), self._seen(self._setup.intent(policy))
        evaluation = self._evaluation(seen)
        errors = feature_distances(seen["network"], exact["network"]) / self._unit
        distance, alignment = (float(each.score(evaluation).loss) for each in self._objectives)
        return Judged(evaluation, errors, (distance, alignment, float(errors.mean())))

    def compare(self, a: Judged, b: Judged) -> Interval:
        """The loss of ``a`` minus that of ``b``, with its 95 % bootstrap interval, paired by caption."""
        differences = []
        for rows in resampled(self._rows, _RESAMPLES, 0):
            parts = [-each.losses([a.evaluation, b.evaluation], rows).diff(dim=1)[:, 0] for each in self._objectives]
            parts.append((a.errors - b.errors)[rows].mean(1))
            differences.append(torch.stack(parts).mean(0))
        return interval(a.loss - b.loss, torch.cat(differences), 0.95)

    def _evaluation(self, seen: dict[str, Tensor]) -> Evaluation:
        return Evaluation(seen["network"], Evaluation.of(seen["clip"], self._text.cpu()).alignment)

    def _seen(self, policy: Policy) -> dict[str, Tensor]:
        """``coarse`` is only ever needed of the full run."""
        path, anchors = self._folder / f"{policy.key}.safetensors", policy == self._setup.full
        if not path.is_file():
            made = self._pictures(policy)
            total = len(self._examples.rows) // BATCH
            batches = [self._look(batch, anchors) for batch in track(made, policy.id, total=total, transient=True)]
            write_tensors(path, {name: torch.cat([each[name] for each in batches]) for name in batches[0]}, {})
        return load_file(path)

    def _look(self, pictures: Tensor, anchors: bool) -> dict[str, Tensor]:
        views = {"network": pictures} | ({"coarse": coarse(pictures)} if anchors else {})
        seen = {name: self._network.image_features(each).cpu() for name, each in views.items()}
        return seen | {"clip": self._clip.image_features(pictures).cpu()}
