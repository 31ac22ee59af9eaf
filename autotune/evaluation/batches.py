"""Pictures of several runs, made and judged batch by batch; what is noted of a batch is kept, its pictures are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from autotune.core.errors import RunFailed
from autotune.core.faults import during
from autotune.core.fingerprint import digest
from autotune.core.interrupts import checkpoint
from autotune.core.naming import FULL_RUN
from autotune.evaluation.examples import Examples
from autotune.evaluation.generation import PictureMaker
from autotune.evaluation.inputs import Row
from autotune.evaluation.intent import exact_policy, is_exact, levels_in
from autotune.evaluation.judged import BY_JUDGE, KEPT_ERRORS, Judged, packed, unpacked
from autotune.evaluation.judges import Judges
from autotune.evaluation.references import OTHER_SEEDS, references_of_other_seeds
from autotune.evaluation.tensor_files import known, read_tensors
from autotune.policy import Policy
from autotune.quality import Reference, measure_fidelity
from autotune.quality.extractor import ImageFeatures
from autotune.quality.lpips import Lpips
from autotune.quality.panel import DISTANCE
from autotune.quality.tensors import write_tensors

_KEPT_AS = {what: KEPT_ERRORS if what == "errors" else what for what in BY_JUDGE}

PREVIEW = 8
"""Pictures kept of every run, for people to look at."""


class PictureProgress(Protocol):
    """Who is told how pictures get on, such as :class:`autotune.workflows.progress.Progress`."""

    def stage(self, text: str, pictures: int = 0) -> None:
        """Something begins that makes ``pictures`` pictures; 0 takes no time worth a bar."""

    def pictures(self, made: int) -> None:
        """So many pictures of the stage are made."""


@dataclass(frozen=True, eq=False)
class Noted:
    """What is kept of N pictures of one run.

    Attributes:
        judged: What judges say; with anchors for the full run.
        psnr: (N,) to the full run's pictures, in decibels.
        ssim: (N,) likewise.
        identical: (N,) bool, whether it is the full run's picture.
        preview: The first :data:`PREVIEW` pictures of the run, (n, 3, H, W) uint8.
        lpips: (N,) distance to the full run's pictures, if asked for.
    """

    judged: Judged
    psnr: Tensor
    ssim: Tensor
    identical: Tensor
    preview: Tensor
    lpips: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Inputs and seeds of one pipeline call, and how many come before them."""

    start: int
    rows: tuple[Row, ...] = field(compare=False)
    keys: tuple[str, ...]
    seeds: tuple[int, ...]


class Batches:
    """Makes what is not kept yet.

    Args:
        maker: Makes the pictures.
        judges: Judge them.
        full: The full run's policy.
        folder: Keeps a file per batch and run, called by a digest of everything that decides it.
        settings: What decides it besides policy, inputs and seeds, JSON-ready.
        progress: Is told of every batch.
        lpips: Measures each picture against the full run's too.
    """

    def __init__(
        self,
        maker: PictureMaker,
        judges: Judges,
        full: Policy,
        folder: Path,
        settings: Mapping[str, Any],
        progress: PictureProgress,
        lpips: Lpips | None = None,
    ) -> None:
        self._maker = maker
        self._judges = judges
        self._full = full
        self._folder = folder
        self._settings = dict(settings)
        self._progress = progress
        self._lpips = lpips

    def run(self, policies: Mapping[str, Policy], examples: Examples, text: Tensor | None) -> dict[str, Noted]:
        """Notes on the full run and every policy, by name, all pictures of a batch before those of the next.

        Args:
            policies: By name, without the full run and without repetitions.
            examples: Inputs and seeds.
            text: (N, E) the scorer's features of their prompts; None where alignment is not measured.

        Raises:
            RunFailed: a policy made a picture with NaN or infinity; what is done stays.
            KeyboardInterrupt: likewise.
        """
        runs = {FULL_RUN: self._full, **policies}
        batches = list(_batches(examples.rows, examples.seeds, self._maker.batch_size))
        waiting = {
            batch: [name for name, policy in runs.items() if not self._is_kept(policy, batch)] for batch in batches
        }
        done = sum(not names for names in waiting.values())
        if done:
            self._progress.stage(f"resuming: {done} of {len(batches)} batches are already done")
        for number, (batch, names) in enumerate(waiting.items(), 1):
            if names:
                # A run in every batch, kept or made: so that the bar never jumps back.
                pictures = len(examples.rows) * len(runs)
                self._progress.stage(f"batch {number} of {len(batches)}, {len(runs)} runs", pictures)
                with during(f"in batch {number} of {len(batches)}"):
                    self._make(batch, {name: runs[name] for name in names}, len(runs), text)
        return {name: self._noted(policy, batches) for name, policy in runs.items()}

    def own_references(
        self, networks: Mapping[str, ImageFeatures], rows: Sequence[Row], first_seed: int
    ) -> dict[str, Reference]:
        """References of the full run's own pictures; see :func:`autotune.evaluation.references.own_references`."""
        self._progress.stage("pictures of the full run as reference", OTHER_SEEDS * len(rows))

        def features(rows: Sequence[Row], seeds: Sequence[int]) -> Iterator[Mapping[str, Tensor]]:
            for batch in _batches(rows, seeds, self._maker.batch_size):
                files = {name: self._path(self._full, batch, _reference_of(name)) for name in networks}
                if not all(path.is_file() for path in files.values()):
                    pictures = self._pictures(FULL_RUN, self._full, batch)
                    for name, network in networks.items():
                        self._keep(files[name], {"features": network.image_features(pictures).cpu()})
                self._progress.pictures(seeds[0] - first_seed + batch.start + len(batch.seeds))
                yield {name: read_tensors(path)["features"] for name, path in files.items()}

        return references_of_other_seeds(features, rows, first_seed)

    def _make(self, batch: Batch, waiting: Mapping[str, Policy], runs: int, text: Tensor | None) -> None:
        """Make and keep a batch of those runs that wait, of ``runs`` in all."""
        count = len(batch.rows)
        texts = None if text is None else text[batch.start : batch.start + count]
        exact: dict[str, Tensor] = {}
        ready = batch.start * runs + (runs - len(waiting)) * count
        full = self._pictures(FULL_RUN, self._full, batch)
        for name, policy in waiting.items():
            path = self._path(policy, batch)
            self._keep(path, self._note(name, policy, batch, full, texts, exact))
            ready += count
            self._progress.pictures(ready)

    def _note(
        self,
        name: str,
        policy: Policy,
        batch: Batch,
        full: Tensor,
        text: Tensor | None,
        exact: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """What is kept of a run's batch; ``exact`` holds the exact runs' pictures of it that were made already."""
        anchors = name == FULL_RUN
        pictures = full if anchors else self._pictures(name, policy, batch)
        paired = self._paired(batch)
        judged = Judged.of(
            pictures,
            text,
            self._judges.scorer,
            self._judges.network,
            anchors=anchors,
            further=self._judges.further,
            prompts=[row.prompt or "" for row in batch.rows],
            exact=self._exact(name, policy, batch, full, exact) if paired else None,
            paired=paired,
            first_row=batch.start,
        )
        nearness = measure_fidelity(pictures, full)
        return known(
            features=judged.features,
            alignment=judged.alignment,
            psnr=nearness.psnr,
            ssim=nearness.ssim,
            identical=nearness.identical,
            preview=pictures[: max(0, PREVIEW - batch.start)],
            # Without a network these are the features themselves, and the format refuses to hold a tensor twice.
            by_scorer=None if judged.by_scorer is None else judged.by_scorer.clone(),
            coarse=judged.coarse,
            lpips=None if self._lpips is None else self._lpips(pictures, full),
        ) | packed(**{_KEPT_AS[what]: getattr(judged, what) for what in BY_JUDGE})

    def _is_kept(self, policy: Policy, batch: Batch) -> bool:
        """Whether a batch of a run is kept with what all judges of the panel say of it."""
        path = self._path(policy, batch)
        if not path.is_file():
            return False
        kept, panel, paired = read_tensors(path), self._judges.panel, self._paired(batch)
        errors, further = unpacked(kept, _KEPT_AS["errors"]), unpacked(kept, _KEPT_AS["further"])
        return all(len(errors.get(name, ())) >= paired for name in panel.errors) and all(
            name in further or name in panel.errors for name in panel.further
        )

    def _of_panel(self, judged: Mapping[str, Tensor], what: str) -> dict[str, Tensor]:
        """What the panel's judges say; an earlier comparison may have asked others, or for more errors."""
        count = self._judges.error_pictures if what.endswith("errors") else None
        return {name: values[:count] for name, values in judged.items() if name in self._judges.panel.further}

    def _paired(self, batch: Batch) -> int:
        """How many of a batch's first pictures are compared with the exact run's."""
        count = self._judges.error_pictures if self._judges.panel.errors else 0
        return max(0, min(count - batch.start, len(batch.rows)))

    def _exact(self, name: str, policy: Policy, batch: Batch, full: Tensor, made: dict[str, Tensor]) -> Tensor | None:
        """First pictures of a batch by the exact run of a policy's intent; None where the policy is exact itself."""
        if is_exact(policy, self._full):
            return None
        paired = self._paired(batch)
        exact = exact_policy(policy, self._full, levels=levels_in(self._maker.pipe))
        if exact.key == self._full.key:
            return full[:paired]
        if exact.key not in made:
            first = Batch(batch.start, batch.rows[:paired], batch.keys[:paired], batch.seeds[:paired])
            made[exact.key] = self._pictures(f"{name}'s exact run", exact, first)
        return made[exact.key]

    def _pictures(self, name: str, policy: Policy, batch: Batch) -> Tensor:
        try:
            (pictures,) = self._maker.pictures(policy, batch.rows, batch.seeds)
        except FloatingPointError as error:
            who = f"the {name}" if name == FULL_RUN else f"policy {name}"
            raise RunFailed(
                f"{who}: {error} (inputs {batch.start + 1} to {batch.start + len(batch.rows)}); leave it out, or "
                f"try another dtype; what was finished before stays in {self._folder}"
            ) from None
        return pictures

    def _keep(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors, {})
        checkpoint()

    def _noted(self, policy: Policy, batches: Sequence[Batch]) -> Noted:
        parts = [read_tensors(self._path(policy, batch)) for batch in batches]
        # Only the first batches have pictures that are compared with the exact run's.
        joined = {name: torch.cat([part[name] for part in parts if name in part]) for name in parts[0]}
        judged = Judged(
            joined["features"],
            joined.get("alignment"),
            joined.get("by_scorer"),
            joined.get("coarse"),
            *(self._of_panel(unpacked(joined, _KEPT_AS[what]), what) for what in BY_JUDGE),
        )
        numbers = {name: joined[name] for name in ("psnr", "ssim", "identical", "preview")}
        return Noted(judged, **numbers, lpips=joined.get("lpips"))

    def _path(self, policy: Policy, batch: Batch, purpose: str | None = None) -> Path:
        if purpose is None:
            purpose = "run" if self._lpips is None else f"run with LPIPS {self._lpips.backbone}"
        fingerprint = digest([self._settings, purpose, policy.key, batch.start, batch.keys, batch.seeds])
        return self._folder / f"{fingerprint}.safetensors"


def _batches(rows: Sequence[Row], seeds: Sequence[int], size: int) -> Iterator[Batch]:
    for start in range(0, len(rows), size):
        part = tuple(rows[start : start + size])
        yield Batch(start, part, tuple(row.key for row in part), tuple(seeds[start : start + size]))


def _reference_of(judge: str) -> str:
    return "reference" if judge == DISTANCE else f"reference by {judge}"
