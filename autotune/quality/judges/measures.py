"""What judges of single pictures and of pairs have in common; those of distributions are feature networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.quality.fidelity import check_pairs
from autotune.quality.tensors import check_judged

__all__ = ["PairedJudge", "PreferenceJudge"]


class PreferenceJudge:
    """How much people would like pictures that were made for prompts, as a network learned it from their choices.

    Args:
        name: What the judge is called.
        score: Pictures (n, 3, H, W) uint8 on ``device`` and n prompts in, (n,) out.
        device: Where it runs.
        batch_size: Most pictures per forward pass.
    """

    def __init__(
        self,
        name: str,
        score: Callable[[Tensor, Sequence[str]], Tensor],
        *,
        device: str | torch.device = "cpu",
        batch_size: int = 16,
    ) -> None:
        self.name = name
        self.device = torch.device(device)
        self._score = score
        self._batch_size = batch_size

    @torch.no_grad()
    def __call__(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores (N,) float64 on the CPU, higher is better; only those for one prompt compare.

        Args:
            pictures: (N, 3, H, W) uint8, each resized as a whole to the network's size.
            prompts: N texts; what is beyond the network's longest is cut off.

        Raises:
            ValueError: Shape or type differ, or there are not as many prompts as pictures.
            InputError: A score is not finite.
        """
        if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3 or len(pictures) == 0:
            raise ValueError(
                f"Expected pictures (N, 3, H, W) in uint8, got {tuple(pictures.shape)} in {pictures.dtype}."
            )
        if isinstance(prompts, str) or len(prompts) != len(pictures):
            raise ValueError(f"Expected a list of {len(pictures)} prompts, one of each picture.")
        scores = [
            self._score(batch.to(self.device), prompts[start : start + len(batch)])
            for start, batch in _batches(pictures, self._batch_size)
        ]
        return check_judged(torch.cat(scores).double().cpu(), self.name)


class PairedJudge:
    """How different two pictures look, pair by pair.

    Args:
        name: What the judge is called.
        error: Two tensors (n, 3, H, W) uint8 on ``device`` in, (n,) out.
        least_side: Pixels a side of the smallest picture it can look at.
        device: Where it runs.
        batch_size: Most pairs per forward pass.
    """

    def __init__(
        self,
        name: str,
        error: Callable[[Tensor, Tensor], Tensor],
        *,
        least_side: int = 1,
        device: str | torch.device = "cpu",
        batch_size: int = 16,
    ) -> None:
        self.name = name
        self.device = torch.device(device)
        self._error = error
        self._least_side = least_side
        self._batch_size = batch_size

    @torch.no_grad()
    def __call__(self, pictures: Tensor, exact: Tensor) -> Tensor:
        """Errors (N,) float64 on the CPU, zero for identical pairs, higher for more different ones.

        Args:
            pictures: (N, 3, H, W) uint8.
            exact: (N, 3, H, W) uint8, what each of them should look like.

        Raises:
            ValueError: Shapes or types differ.
            InputError: Pictures are too small, or an error is not finite.
        """
        check_pairs(pictures, exact)
        if min(pictures.shape[-2:]) < self._least_side:
            height, width = pictures.shape[-2:]
            raise InputError(
                f"judge {self.name} needs pictures of {self._least_side} pixels a side or more, not {height}x{width}; "
                "leave it out, or make larger ones"
            )
        errors = [
            self._error(batch.to(self.device), exact[start : start + len(batch)].to(self.device))
            for start, batch in _batches(pictures, self._batch_size)
        ]
        return check_judged(torch.cat(errors).double().cpu(), self.name)


def _batches(pictures: Tensor, size: int) -> list[tuple[int, Tensor]]:
    return [(index * size, batch) for index, batch in enumerate(torch.split(pictures, size))]
