"""Weights that make the last computed outputs forecast the next ones best, by least squares (L2P, arXiv 2604.26365).

Only inner products are kept, never outputs: of every step that is forecast a matrix of at most four by four.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from autotune.core.errors import InputError
from autotune.policy import MAX_WEIGHTS

RIDGE = 1e-4
"""Relative to the predictors' mean energy, against large weights of either sign of predictors that hardly differ.

Those fit full runs best, but amplify what a run under a policy does differently.
"""

Array = NDArray[np.float64]


class NormalEquations:
    """Sums of inner products of a target and its ``count`` predictors, the newest first, in float64.

    Every row counts by its error relative to the target's size, so that no picture and no unit outweighs others.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.samples = 0
        self._products: Array = np.zeros((count + 1, count + 1))

    def add(self, target: Sequence[Tensor], predictors: Sequence[Sequence[Tensor]]) -> None:
        """Take rows into account.

        Args:
            target: tensors (rows, ...) of one output in the step that is forecast.
            predictors: as many as the weights; of each the tensors of the output in an earlier step, of equal shapes.
        """
        products: Tensor | None = None
        for tensors in zip(target, *predictors, strict=True):
            stacked = torch.stack([_flat(tensor) for tensor in tensors], dim=1)
            found = stacked @ stacked.transpose(1, 2)
            products = found if products is None else products + found
        if products is None:
            return
        size = products[:, 0, 0]
        relative = products[size > 0] / size[size > 0, None, None]
        self._products += relative.sum(0).cpu().numpy()
        self.samples += len(relative)

    def weights(self, ridge: float = RIDGE) -> Array:
        """(count,) weights of least squared error, the newest predictor's first.

        Minimises ``||y - X w||^2 + ridge * mean_energy(X) * ||w - w0||^2``, where ``w0`` reuses the newest result:
        what the data do not decide stays near that.

        Args:
            ridge: at least 0.
        """
        gram, moments = self._products[1:, 1:], self._products[1:, 0]
        start = np.eye(self.count)[0]
        penalty = ridge * np.trace(gram) / self.count * np.eye(self.count)
        # Of equal predictors, without a ridge, the least change: lstsq takes the solution of least norm.
        change = np.linalg.lstsq(gram + penalty, moments - gram @ start, rcond=None)[0]
        return np.asarray(start + change, dtype=np.float64)

    def error(self, weights: ArrayLike) -> float:
        """Mean over rows of ``||y - X w||^2 / ||y||^2``."""
        signed = np.concatenate([[1.0], -np.asarray(weights, dtype=np.float64)])
        return float(signed @ self._products @ signed) / max(self.samples, 1)


def fit_forecast(
    outputs: Sequence[Sequence[Tensor]], compute_steps: Sequence[int], *, terms: int = 2, ridge: float = RIDGE
) -> tuple[tuple[float, ...], ...]:
    """Weights for every step that is not computed, the newest computed result's first.

    Args:
        outputs: For every unit one tensor (rows, ...) a step: its outputs, or what it adds to its input, along full
            runs. One set of weights serves all units.
        compute_steps: Increasing, beginning with 0.
        terms: Weights of a step; as many as have been computed where these are fewer.
        ridge: See :meth:`NormalEquations.weights`.

    Raises:
        InputError: there is no output, or ``terms`` or ``ridge`` is out of range.

    Example:
        >>> line = [torch.tensor([[1.0 + step, 3.0 - step]]) for step in range(4)]
        >>> [[round(weight, 3) for weight in step] for step in fit_forecast([line], (0, 1), ridge=0)]
        [[2.0, -1.0], [3.0, -2.0]]
    """
    check_terms(terms, ridge)
    if not outputs or not outputs[0]:
        raise InputError("weights are fitted to the outputs of at least one unit in at least one step")
    found = []
    for step in range(len(outputs[0])):
        if step in compute_steps:
            continue
        before = compute_steps[: bisect_left(compute_steps, step)][-terms:]
        equations = NormalEquations(len(before))
        for unit in outputs:
            equations.add([unit[step]], [[unit[earlier]] for earlier in reversed(before)])
        found.append(tuple(map(float, equations.weights(ridge))))
    return tuple(found)


def check_terms(terms: int, ridge: float) -> None:
    """Refuse what no fit can use.

    Raises:
        InputError: ``terms`` or ``ridge`` is out of range.
    """
    if not 1 <= terms <= MAX_WEIGHTS:
        raise InputError(f"terms is {terms}; a step has 1 to {MAX_WEIGHTS} weights")
    if not 0 <= ridge < np.inf:
        raise InputError(f"ridge is {ridge}; give a finite number of at least 0")


def _flat(tensor: Tensor) -> Tensor:
    """(rows, features) in float64, on the CPU where the device has none."""
    return (tensor.cpu() if tensor.device.type == "mps" else tensor).double().flatten(1)
