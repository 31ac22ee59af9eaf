"""One list of inputs and seeds, on which policies are compared: pictures, features, cached outcomes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from autotune.evaluation.exact_runs import ExactRuns, Make, Pictures, pairs, parts
from autotune.evaluation.inputs import Row
from autotune.evaluation.intent import exact_policy
from autotune.evaluation.judged import Judged, Jury, packed, unpacked
from autotune.evaluation.outcomes import PREVIEW, Outcome, cut, read_outcome, save_outcome
from autotune.evaluation.tensor_files import known, read_tensors
from autotune.policy import Policy
from autotune.quality import QUALITY, Baseline, Evaluation, Objective, Reference, Weights, coarse
from autotune.quality.extractor import Features, ImageFeatures
from autotune.quality.jury import LoadedJudge
from autotune.quality.objective import DISTANCE
from autotune.quality.panel import Panel
from autotune.quality.tensors import write_tensors
from autotune.quality.terms import flat

__all__ = ["Evaluator", "Judged", "Outcome", "Pictures"]

ERROR_PICTURES = 8
"""The fewest pictures that are compared with the exact run's."""


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
        cache: Folder that keeps outcomes between runs. It must belong to these inputs, seeds and settings alone, or to
            a list that begins with them: what is kept of the first inputs is gone on with.
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
        kept = self._kept_head(policy)
        if kept is not None and len(kept.evaluation) == len(self.rows):
            return kept
        outcome, _ = self._judged(policy, kept, should_prune=should_prune)
        if len(outcome.evaluation) == len(self.rows):
            save_outcome(outcome, self._path(policy))
        return outcome

    def kept(self, policy: Policy) -> Outcome | None:
        """What an earlier call found, if it is kept here of all inputs and by all judges.

        Errors that an earlier release did not ask for are found now, in the pictures it kept for people to look at.
        """
        kept = self._kept_head(policy)
        return kept if kept is not None and len(kept.evaluation) == len(self.rows) else None

    def _kept_head(self, policy: Policy) -> Outcome | None:
        """What is kept of the first inputs, all of them or fewer, by all judges."""
        outcome = read_outcome(self._path(policy))
        if outcome is None or any(
            name not in outcome.evaluation.further for name in self._names("distribution", "alignment")
        ):
            return None
        outcome = outcome.head(len(self.rows))
        evaluation = outcome.evaluation
        count = min(self.exact_runs.count, len(evaluation))
        if all(len(evaluation.errors.get(name, ())) >= count for name in self._names("paired")):
            return replace(outcome, evaluation=replace(evaluation, errors=cut(evaluation.errors, count)))
        if len(outcome.preview) < count:
            return None
        errors = self._jury.between(outcome.preview[:count], self.exact_runs.of(policy, count))
        outcome = replace(outcome, evaluation=replace(evaluation, errors=errors))
        save_outcome(outcome, self._path(policy))
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
        outcome = self._kept_head(full) if path.is_file() else None
        seen = None if outcome is None else self._kept_anchors(path, outcome)
        if outcome is None or seen is None or len(seen.features) < len(self.rows):
            outcome, seen = self._judged(full, outcome if seen is not None else None, seen, anchors=True)
            save_outcome(outcome, self._path(full))
            write_tensors(path, self._anchors(seen), {})
        # Those of a release without exact runs are among the pictures that it kept.
        self.exact_runs.keep(full, outcome.preview)
        return outcome, seen.baseline(self._text, self.keys)

    def _kept_anchors(self, path: Path, outcome: Outcome) -> Judged | None:
        """What is kept of the full run's pictures and their coarse ones, by all judges; None where one is missing.

        An earlier release may have kept less than is asked for now: errors can be found in the pictures it kept.
        """
        tensors, evaluation, made = read_tensors(path), outcome.evaluation, len(outcome.evaluation)
        if len(tensors["coarse"]) < made:
            return None
        errors, further = unpacked(tensors, "errors"), unpacked(tensors, "further")
        if any(name not in further for name in self._names("distribution", "alignment")):
            return None
        count, first = min(self.exact_runs.count, made), outcome.preview
        if any(len(errors.get(name, ())) < count for name in self._names("paired")):
            if len(first) < count:
                return None
            errors = self._jury.errors(coarse(first[:count]), first[:count])
            write_tensors(path, tensors | packed(errors=errors), {})
        by_scorer = tensors.get("by_scorer")
        if self._text is not None and by_scorer is None:
            if self._network is not None:
                return None
            by_scorer = evaluation.features
        return Judged(
            evaluation.features,
            evaluation.alignment,
            None if by_scorer is None else by_scorer[:made],
            tensors["coarse"][:made],
            evaluation.errors,
            evaluation.further,
            cut(errors, count),
            {name: values[:made] for name, values in further.items()},
        )

    def _anchors(self, seen: Judged) -> dict[str, Tensor]:
        """As files hold them; features of the scorer only where they are not those that distances are taken in."""
        by_scorer = None if self._network is None else seen.by_scorer
        anchors = known(coarse=seen.coarse, by_scorer=by_scorer)
        return anchors | packed(errors=seen.coarse_errors, further=seen.coarse_further)

    def _judged(
        self,
        policy: Policy,
        kept: Outcome | None = None,
        seen: Judged | None = None,
        *,
        anchors: bool = False,
        should_prune: Callable[[Evaluation], bool] | None = None,
    ) -> tuple[Outcome, Judged]:
        """Pictures made and judged batch by batch, until ``should_prune`` says so.

        Args:
            policy: Whose pictures they are.
            kept: What is known of the first of them, which are not made again.
            seen: The same with its anchors; None takes it from ``kept``.
            anchors: Judge their coarse pictures too.
            should_prune: See :meth:`outcome`.
        """
        count, most = len(self.rows), self.exact_runs.count
        before = 0 if kept is None else len(kept.evaluation)
        judged: list[Judged] = []
        firsts: list[Tensor] = []
        paired = 0
        if kept is not None:
            evaluation = kept.evaluation
            known_before = Judged(
                evaluation.features, evaluation.alignment, errors=evaluation.errors, further=evaluation.further
            )
            judged, firsts, paired = [seen or known_before], [kept.preview], min(before, most)
        shown = max(PREVIEW, most)
        with closing(self._batches(policy, before, anchors)) as batches:
            for made, batch, exact, comparable in batches:
                end = made + len(batch)
                if paired < min(made, comparable):
                    late = slice(paired, min(made, comparable))
                    of_late = None if exact is None else exact[late]
                    errors = self._jury.between(torch.cat(firsts)[late], of_late, paired)
                    judged[-1] = judged[-1].with_errors(errors)
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
                        paired=max(0, min(end, comparable) - made),
                        first_row=made,
                    )
                )
                paired = max(paired, min(end, comparable))
                if made < shown:
                    firsts.append(batch[: shown - made].clone())
                if should_prune is not None and end < count and should_prune(Judged.joined(judged).evaluation):
                    break
        run, first = Judged.joined(judged), torch.cat(firsts)
        if not before:
            self.exact_runs.keep(policy, first)
        return Outcome(run.evaluation, first[:PREVIEW].clone()), run

    def _batches(
        self, policy: Policy, made: int, anchors: bool
    ) -> Generator[tuple[int, Tensor, Tensor | None, int], None, None]:
        """Pictures from number ``made`` on in batches: the first one's number, the batch, its exact run's first
        pictures, and how many are compared with them by now: with anchors, or where some are kept, as many as ever.

        They are made part by part, because a pipeline runs under one policy at a time: before each part the exact run
        gets as far as this one is about to.
        """
        count, most = len(self.rows), self.exact_runs.count
        for first, last in parts(count, made):
            compared = most if anchors or made else pairs(last, count, most)
            exact = self.exact_runs.of(policy, min(last, compared)) if made < most else None
            with closing(self._pictures(policy, first, last)) as batches:
                for batch in batches:
                    yield first, batch, exact, compared
                    first += len(batch)
