"""What policies' pictures scored, kept in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from autotune.evaluation.judged import KEPT_ERRORS, packed, unpacked
from autotune.evaluation.tensor_files import known, read_tensors
from autotune.quality import Evaluation
from autotune.quality.tensors import write_tensors

PREVIEW = 16
"""Pictures kept of every outcome, for people to look at."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a policy's pictures scored, and the first :data:`PREVIEW` of them (uint8, (n, 3, H, W))."""

    evaluation: Evaluation
    preview: Tensor

    def head(self, count: int) -> Outcome:
        """Of the first ``count`` pictures alone."""
        if count >= len(self.evaluation):
            return self
        return Outcome(self.evaluation.head(count), self.preview[:count])


def save_outcome(outcome: Outcome, path: Path) -> None:
    """Write an outcome, whole or not at all: an interrupt must not leave half of one that the next run would trust."""
    path.parent.mkdir(parents=True, exist_ok=True)
    evaluation = outcome.evaluation
    tensors = known(features=evaluation.features, alignment=evaluation.alignment, preview=outcome.preview)
    tensors |= packed(**{KEPT_ERRORS: evaluation.errors, "further": evaluation.further})
    write_tensors(path, {name: tensor.contiguous() for name, tensor in tensors.items()}, {})


def read_outcome(path: Path) -> Outcome | None:
    """What :func:`save_outcome` wrote; None where it did not."""
    if not path.is_file():
        return None
    tensors = read_tensors(path)
    errors, further = unpacked(tensors, KEPT_ERRORS), unpacked(tensors, "further")
    return Outcome(Evaluation(tensors["features"], tensors.get("alignment"), errors, further), tensors["preview"])


def cut(errors: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Errors of so many pictures; an earlier run may have compared more."""
    return {name: values[:count] for name, values in errors.items()} if count else {}
