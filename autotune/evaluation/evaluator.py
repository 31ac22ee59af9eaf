"""One list of inputs and seeds, on which policies are compared: pictures, features, cached outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from autotune.evaluation.exact_runs import ExactRuns, Make, Pictures, parts
from autotune.evaluation.inputs import Row
from autotune.evaluation.intent import PLACES, exact_policy
from autotune.evaluation.judged import Judged, Jury, packed, unpacked
from autotune.evaluation.tensor_files import known, read_tensors
from autotune.policy import Policy
from autotune.quality import QUALITY, Baseline, Evaluation, Objective, Reference, Weights, coarse
from autotune.quality.extractor import Features, ImageFeatures
from autotune.quality.jury import LoadedJudge
from autotune.quality.objective import DISTANCE
from autotune.quality.panel import Panel
from autotune.quality.tensors import write_tensors
from autotune.quality.terms import flat

__all__ = ["PREVIEW", "Evaluator", "Judged", "Outcome", "Pictures", "known"]

PREVIEW = 16
"""Pictures kept of every outcome, for people to look at."""

ERROR_PICTURES = 32
"""Pictures that are compared with the exact run's: beyond them an exact run costs more than it tells."""

# Kept errors are of exact runs whose guidance switches where it does now.
_ERRORS = f"errors-{PLACES}"


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a policy's pictures scored, and the first :data:`PREVIEW` of them (uint8, (n, 3, H, W))."""

    evaluation: Evaluation
    preview: Tensor


class Evaluator:
    """Evaluates policies on the same inputs and seeds, each policy once.

    Args:
        pictures: Makes a policy's pictures of the rows from one to another, in their order, in batches
            (n, 3, H, W) uint8 of which one is held at a time.
        scorer: Image and text features; None where prompts play no part and a network sees the pictures.
        rows: The N inputs. Their prompts are scored where all have one.
        reference: Features that good pictures have; None takes the full run's own on these very inputs, which
            suits objectives that give the distance no weight.
        full: The full run's policy; scores are relative to it.
        cache: Folder that keeps outcomes between runs. It must belong to these inputs, seeds
            and settings alone.
        network: Image features that the distance to the reference is taken in; None takes the scorer's.
        distance: Estimator of that distance.
        weights: The panel of judges, or the weights of the three terms that need no exact runs.
        text: Whether alignment with the prompts is measured, which takes a scorer.
        further: Judges of the panel beside scorer and network.
        references: What good pictures have for those of them that judge distributions, by name; the full run's own on
            these very inputs where one is missing.
        error_pictures: How many of the first pictures are compared with the exact run's, where judges do so.
        intent: The exact run's policy of a policy; by default :func:`autotune.evaluation.intent.exact_policy`.
        make_exact: Makes the pictures of exact runs; by default ``pictures``.

    Raises:
        InputError: The full run's pictures cannot be told from bad ones: reference or scorer do not suit them.
    """

    def __init__(
        self,
        pictures: Make,
        scorer: Features | None,
        rows: Sequence[Row],
        reference: Reference | None,
        full: Policy,
        cache: Path,
        *,
        network: ImageFeatures | None = None,
        distance: str = DISTANCE,
        weights: Weights | Panel = QUALITY,
        text: bool = True,
        further: Sequence[LoadedJudge] = (),
        references: Mapping[str, Reference] | None = None,
        error_pictures: int = ERROR_PICTURES,
        intent: Callable[[Policy], Policy] | None = None,
        make_exact: Make | None = None,
    ) -> None:
        self.rows = tuple(rows)
        self.keys = tuple(row.key for row in rows)
        self._pictures = pictures
        self._scorer = scorer
        self._network = network
        self._jury = Jury(scorer, network, tuple(further))
        self._cache = cache
        self._prompts = [row.prompt or "" for row in rows]
        self._text = scorer.text_features(self._prompts) if scorer is not None and text else None
        self.full_policy = full
        self.exact_runs = ExactRuns(
            cache / "exact",
            make_exact or pictures,
            min(error_pictures, len(self.rows)) if self._jury.of_kind("paired") else 0,
            len(self.rows),
            full,
            intent or partial(exact_policy, full=full),
        )
        self.full, baseline = self._baseline(full)
        given = dict(references or {})
        own = {name: baseline.full.further[name] for name in self._names("distribution") if name not in given}
        self.objective = Objective(
            reference or Reference.of(baseline.full.features, shrink=True),
            baseline,
            distance=distance,
            weights=weights,
            references=given | {name: Reference.of(flat(seen), shrink=True) for name, seen in own.items()},
        )

    def outcome(self, policy: Policy, should_prune: Callable[[Evaluation], bool] | None = None) -> Outcome:
        """Make and judge the policy's pictures, or read what an earlier call found.

        Args:
            policy: What to evaluate.
            should_prune: Asked after every batch but the last, with the evaluation of the pictures made so far. Where
                it says so no more are made, and the outcome, of these alone, is not kept.
        """
        kept = self.kept(policy)
        if kept is not None:
            return kept
        outcome, _ = self._judged(policy, should_prune=should_prune)
        if len(outcome.evaluation) == len(self.rows):
            _save(outcome, self._path(policy))
        return outcome

    def kept(self, policy: Policy) -> Outcome | None:
        """What an earlier call found, if it is kept here and by all judges.

        Errors that an earlier release did not ask for are found now, in the pictures it kept for people to look at.
        """
        path = self._path(policy)
        if not path.is_file():
            return None
        outcome = _load(path)
        evaluation, count = outcome.evaluation, self.exact_runs.count
        if any(name not in evaluation.further for name in self._names("distribution", "alignment")):
            return None
        if all(len(evaluation.errors.get(name, ())) >= count for name in self._names("paired")):
            return replace(outcome, evaluation=replace(evaluation, errors=_cut(evaluation.errors, count)))
        if len(outcome.preview) < count:
            return None
        exact, first = self.exact_runs.of(policy, count), outcome.preview[:count]
        errors = self._jury.no_errors(count) if exact is None else self._jury.errors(first, exact)
        outcome = replace(outcome, evaluation=replace(evaluation, errors=errors))
        _save(outcome, path)
        return outcome

    def probe(self, policy: Policy, beyond: int = 0) -> Evaluation:
        """Make and judge pictures of the policy once more, until there are more than ``beyond``; nothing is kept."""
        outcome, _ = self._judged(policy, should_prune=lambda partial: len(partial.features) > beyond)
        return outcome.evaluation

    def _names(self, *kinds: str) -> list[str]:
        return [judge.name for kind in kinds for judge in self._jury.of_kind(kind)]

    def _path(self, policy: Policy) -> Path:
        return self._cache / f"{policy.key}.safetensors"

    def _baseline(self, full: Policy) -> tuple[Outcome, Baseline]:
        """The full run with the anchors of what is bad, which take its pictures too."""
        path = self._cache / "anchors.safetensors"
        outcome = self.kept(full) if path.is_file() else None
        anchors = {} if outcome is None else read_tensors(path)
        if outcome is not None and not self._judged_anchors(anchors):
            anchors = self._judge_anchors_of_preview(anchors, outcome.preview)
            write_tensors(path, anchors, {})
        if outcome is None or not self._judged_anchors(anchors):
            outcome, judged = self._judged(full, anchors=True)
            baseline = judged.baseline(self._text, self.keys)
            _save(outcome, self._path(full))
            anchors = known(coarse=baseline.coarse, chance=baseline.chance) | packed(
                errors=baseline.coarse_errors, further=baseline.coarse_further
            )
            write_tensors(path, anchors, {})
        # Those of a release without exact runs are among the pictures that it kept.
        self.exact_runs.keep(full, outcome.preview)
        errors = _cut(unpacked(anchors, "errors"), self.exact_runs.count)
        further = unpacked(anchors, "further")
        return outcome, Baseline(
            outcome.evaluation, anchors["coarse"], anchors.get("chance"), self.keys, errors, further
        )

    def _judged_anchors(self, anchors: Mapping[str, Tensor]) -> bool:
        """Whether all judges have seen the coarse pictures."""
        errors, further = unpacked(anchors, "errors"), unpacked(anchors, "further")
        return all(len(errors.get(name, ())) >= self.exact_runs.count for name in self._names("paired")) and all(
            name in further for name in self._names("distribution", "alignment")
        )

    def _judge_anchors_of_preview(self, anchors: Mapping[str, Tensor], preview: Tensor) -> dict[str, Tensor]:
        """With the coarse pictures' errors, as far as there are pictures to make them of."""
        first = preview[: self.exact_runs.count]
        if not self.exact_runs.count or len(first) < self.exact_runs.count:
            return dict(anchors)
        return {**anchors, **packed(errors=self._jury.errors(coarse(first), first))}

    def _judged(
        self, policy: Policy, *, anchors: bool = False, should_prune: Callable[[Evaluation], bool] | None = None
    ) -> tuple[Outcome, Judged]:
        """Pictures made and judged batch by batch, until ``should_prune`` says so.

        They are made part by part, because a pipeline runs under one policy at a time: before each part the exact run
        gets as far as this one is about to.
        """
        count, paired = len(self.rows), self.exact_runs.count
        judged: list[Judged] = []
        firsts: list[Tensor] = []
        shown = max(PREVIEW, paired)

        def is_pruned(made: int) -> bool:
            if should_prune is None or made == count:
                return False
            return should_prune(Judged.joined(judged).evaluation)

        for made, last in parts(count):
            exact = self.exact_runs.of(policy, min(last, paired)) if made < paired else None
            with closing(self._pictures(policy, made, last)) as batches:
                for batch in batches:
                    end = made + len(batch)
                    judged.append(
                        Judged.of(
                            batch,
                            None if self._text is None else self._text[made:end],
                            self._scorer,
                            self._network,
                            anchors=anchors,
                            further=self._jury.further,
                            prompts=self._prompts[made:end],
                            exact=None if exact is None else exact[made:end],
                            paired=max(0, min(end, paired) - made),
                            first_row=made,
                        )
                    )
                    if made < shown:
                        firsts.append(batch[: shown - made].clone())
                    made = end
                    if is_pruned(made):
                        break
                else:
                    continue
                break
        run, first = Judged.joined(judged), torch.cat(firsts)
        self.exact_runs.keep(policy, first)
        return Outcome(run.evaluation, first[:PREVIEW].clone()), run


def _save(outcome: Outcome, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    evaluation = outcome.evaluation
    tensors = known(features=evaluation.features, alignment=evaluation.alignment, preview=outcome.preview)
    tensors |= packed(**{_ERRORS: evaluation.errors, "further": evaluation.further})
    # An interrupt must not leave half an outcome that the next run would trust: the file appears when it is complete.
    write_tensors(path, tensors, {})


def _load(path: Path) -> Outcome:
    tensors = read_tensors(path)
    errors, further = unpacked(tensors, _ERRORS), unpacked(tensors, "further")
    return Outcome(Evaluation(tensors["features"], tensors.get("alignment"), errors, further), tensors["preview"])


def _cut(errors: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Errors of so many pictures; an earlier run may have compared more."""
    return {name: values[:count] for name, values in errors.items()} if count else {}
