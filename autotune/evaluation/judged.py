"""What judges say of pictures, batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from autotune.quality import Baseline, Evaluation, coarse, prompt_alignment, shuffled_alignment
from autotune.quality.extractor import Features, ImageFeatures
from autotune.quality.jury import LoadedJudge


@dataclass(frozen=True, eq=False)
class Jury:
    """All who look at pictures.

    Attributes:
        scorer: Image and text features; None where neither are needed.
        network: Image features that distances are taken in; None takes the scorer's.
        further: The other judges of the panel.
    """

    scorer: Features | None
    network: ImageFeatures | None = None
    further: tuple[LoadedJudge, ...] = ()

    def of_kind(self, kind: str) -> tuple[LoadedJudge, ...]:
        return tuple(judge for judge in self.further if judge.kind == kind)

    def errors(self, pictures: Tensor, exact: Tensor, first_row: int = 0) -> dict[str, Tensor]:
        """Differences (n,) of pictures from the exact runs', by judge of pairs."""
        return {judge.name: judge.errors(pictures, exact, first_row) for judge in self.of_kind("paired")}

    def no_errors(self, count: int) -> dict[str, Tensor]:
        """Of so many pictures that are exact themselves."""
        return {judge.name: torch.zeros(count, dtype=torch.float64) for judge in self.of_kind("paired")}

    def between(self, pictures: Tensor, exact: Tensor | None, first_row: int = 0) -> dict[str, Tensor]:
        """Errors (n,) of pictures to the exact run's of the same inputs; None where they are exact themselves."""
        return self.no_errors(len(pictures)) if exact is None else self.errors(pictures, exact, first_row)

    def look(self, pictures: Tensor, prompts: Sequence[str], first_row: int = 0) -> dict[str, Tensor]:
        """What the other judges give of pictures with their prompts."""
        seen = {judge.name: judge.features(pictures, first_row) for judge in self.of_kind("distribution")}
        return seen | {judge.name: judge.scores(pictures, prompts) for judge in self.of_kind("alignment")}


@dataclass(frozen=True, eq=False)
class Judged:
    """What judges say of n pictures.

    Attributes:
        features: (n, D), what distances are taken in.
        alignment: (n,) cosine of each picture with its prompt; None where there are no prompts.
        by_scorer: (n, E), the image-text model's features, where there are prompts. This, ``coarse``,
            ``coarse_errors`` and ``coarse_further`` are None or empty unless anchors are asked for.
        coarse: (n, D) features of the pictures after :func:`autotune.quality.coarse`.
        errors: By judge of pairs, of those pictures that have an exact run's to be compared with.
        further: By other judge.
        coarse_errors: What judges of pairs find between these pictures and their coarse ones.
        coarse_further: What other judges give of the coarse ones.
    """

    features: Tensor
    alignment: Tensor | None = None
    by_scorer: Tensor | None = None
    coarse: Tensor | None = None
    errors: Mapping[str, Tensor] = field(default_factory=dict)
    further: Mapping[str, Tensor] = field(default_factory=dict)
    coarse_errors: Mapping[str, Tensor] = field(default_factory=dict)
    coarse_further: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(
        pictures: Tensor,
        text: Tensor | None,
        scorer: Features | None,
        network: ImageFeatures | None = None,
        *,
        anchors: bool = False,
        further: Sequence[LoadedJudge] = (),
        prompts: Sequence[str] = (),
        exact: Tensor | None = None,
        paired: int = 0,
        first_row: int = 0,
    ) -> Judged:
        """Judge pictures (n, 3, H, W) uint8 whose prompts, if they have any, have the features ``text`` (n, E).

        Args:
            pictures: The pictures.
            text: By ``scorer``; None where there are no prompts.
            scorer: Image and text features; None where neither are needed.
            network: Image features that distances are taken in; None takes the scorer's.
            anchors: Note what :meth:`baseline` needs.
            further: Other judges.
            prompts: Of the pictures, for them.
            exact: Pictures (m, 3, H, W) of the exact run of the same intent, of the first m of the inputs; None where
                the pictures are exact themselves.
            paired: m.
            first_row: Number of the first picture's row.
        """
        judge = network or scorer
        assert judge is not None, "somebody judges"
        seen = None if scorer is None or text is None else scorer.image_features(pictures)
        features = seen if seen is not None and network is None else judge.image_features(pictures)
        alignment = None if seen is None or text is None else prompt_alignment(seen, text).cpu()
        jury = Jury(scorer, network, tuple(further))
        errors: Mapping[str, Tensor] = {}
        if paired:
            errors = jury.between(pictures[:paired], exact, first_row)
        judged = Judged(features.cpu(), alignment, errors=errors, further=jury.look(pictures, prompts, first_row))
        if not anchors:
            return judged
        spoiled = coarse(pictures)
        return replace(
            judged,
            by_scorer=None if seen is None else seen.cpu(),
            coarse=judge.image_features(spoiled).cpu(),
            coarse_errors=jury.errors(spoiled[:paired], pictures[:paired], first_row) if paired else {},
            coarse_further=jury.look(spoiled, prompts, first_row),
        )

    def with_errors(self, later: Mapping[str, Tensor]) -> Judged:
        """The same with errors of pictures that come after those which have any."""
        errors = {
            name: torch.cat([self.errors[name], values]) if name in self.errors else values
            for name, values in later.items()
        }
        return replace(self, errors=errors)

    @staticmethod
    def joined(batches: Sequence[Judged]) -> Judged:
        """All of one run, from its batches in their order."""

        def column(name: str) -> Tensor | None:
            tensors = [tensor for tensor in (getattr(batch, name) for batch in batches) if tensor is not None]
            return torch.cat(tensors) if tensors else None

        def columns(name: str) -> dict[str, Tensor]:
            found: dict[str, list[Tensor]] = {}
            for batch in batches:
                for judge, tensor in getattr(batch, name).items():
                    found.setdefault(judge, []).append(tensor)
            return {judge: torch.cat(tensors) for judge, tensors in found.items()}

        return Judged(
            torch.cat([batch.features for batch in batches]),
            column("alignment"),
            column("by_scorer"),
            column("coarse"),
            columns("errors"),
            columns("further"),
            columns("coarse_errors"),
            columns("coarse_further"),
        )

    @property
    def evaluation(self) -> Evaluation:
        return Evaluation(self.features, self.alignment, self.errors, self.further)

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
        return Baseline(self.evaluation, self.coarse, chance, tuple(keys), self.coarse_errors, self.coarse_further)


KEPT_ERRORS = "errors-midway"
"""What files call errors: of exact runs whose guidance switches where it does now."""

BY_JUDGE = ("errors", "further", "coarse_errors", "coarse_further")
"""What :class:`Judged` has by judge."""


def packed(**by_judge: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by judge as files hold them, under ``WHAT.JUDGE``."""
    # The format refuses to hold a tensor twice.
    return {f"{what}.{name}": tensor.clone() for what, judged in by_judge.items() for name, tensor in judged.items()}


def unpacked(tensors: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
    """What :func:`packed` put under ``what``."""
    return {name.removeprefix(f"{what}."): each for name, each in tensors.items() if name.startswith(f"{what}.")}
