"""How much each part of a denoiser changes from step to step, measured once, and the best steps to compute it in.

Where an output hardly changes, reusing it costs little. One full run on a few prompts gives the relative change of
every output between consecutive steps; dynamic programming turns it into the computing steps of a cache rule.

How an output's error reaches the latents depends on the step. Solvers integrate over the logarithm of noise to signal
(half the negative log-SNR; Lu et al. 2022, DPM-Solver, section 3), so an error counts as much as its step takes of it.
Left out is how a denoiser goes on with latents that are wrong. This proposes schedules, it does not judge them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autotune.core.errors import InputError
from autotune.evaluation.generation import PictureMaker
from autotune.evaluation.inputs import Row
from autotune.pipelines.units import find_units
from autotune.policy import Policy
from autotune.runtime.apply import session_of
from autotune.runtime.models import denoiser_of, root_of
from autotune.runtime.schedulers import level

Array = NDArray[np.float64]

LEAST_NOISE = math.log(0.1)
"""Logarithm of noise to signal at which a run ends: with clean latents it never would, and less is not seen."""
_MOST_NOISE = math.log(1000.0)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Relative changes of outputs along a run.

    Attributes:
        units: For every row what a cache rule's ``units`` would say.
        changes: (units, steps), ``||y[t] - y[t - 1]|| / ||y[t]||`` at step t, the mean over pictures and over the
            units of a row; 0 at the first step.
        progress: (steps,), growing from 0 towards 1: how far denoising has come when a step begins.
        noise: (steps,), falling: logarithm of noise to signal when a step begins, :data:`LEAST_NOISE` at least.
    """

    units: tuple[tuple[str, ...], ...]
    changes: Array
    progress: Array
    noise: Array

    @property
    def strides(self) -> Array:
        """(steps,) how far each step goes in the logarithm of noise to signal."""
        return np.maximum(-np.diff(self.noise, append=LEAST_NOISE), 0)

    def at(self, progress: ArrayLike) -> Sensitivity:
        """As a run with steps at these points of its way would show it.

        What adds up between two points is taken to be the same however many steps lie between them. Beyond the last
        step measured it goes on growing as it did there.
        """
        ends, path = self.progress, np.cumsum(self.changes, axis=1)
        if len(ends) > 1 and ends[-1] < 1:
            slope = self.changes[:, -1:] / (ends[-1] - ends[-2])
            path = np.hstack([path, path[:, -1:] + slope * (1 - ends[-1])])
            ends = np.append(ends, 1.0)
        points = np.asarray(progress, dtype=np.float64)
        sampled = np.stack([np.interp(points, ends, row) for row in path])
        changes = np.diff(sampled, axis=1, prepend=sampled[:, :1])
        noise = np.interp(points, np.append(self.progress, 1.0), np.append(self.noise, LEAST_NOISE))
        return replace(self, changes=changes, progress=points, noise=noise)


def progress_of(timesteps: Sequence[float]) -> Array:
    """How far denoising has come at each of a run's falling timesteps, as a fraction of the first one."""
    falling = np.asarray(timesteps, dtype=np.float64)
    return 1 - falling / falling[0] if falling[0] else np.zeros_like(falling)


def even_progress(steps: int) -> Array:
    """The same for ``steps`` steps a constant stride apart."""
    return np.arange(steps) / steps


def measure_sensitivity(
    maker: PictureMaker, full: Policy, units: Sequence[Sequence[str]], inputs: Sequence[Row], seeds: Sequence[int]
) -> Sensitivity:
    """Watch the outputs of units during a full run.

    Holds one output of every unit in memory. Where guidance has a denoiser call of its own, both calls count; of a
    step with several calls the first one does, against the last one before.

    Args:
        maker: Makes the pictures.
        full: The full run's policy, which computes everything.
        units: For every row what a cache rule's ``units`` would say: names, ranges and patterns.
        inputs: A few; eight tell outputs apart well enough.
        seeds: As many.

    Raises:
        PolicyError: the denoiser has no such unit.
        InputError: there is nothing to measure.
    """
    if not units or not inputs:
        raise InputError("sensitivities are measured of at least one unit, on at least one input")
    denoiser = root_of(denoiser_of(maker.pipe))
    structure = find_units(denoiser)
    rows = [sorted(structure.resolve(names)) for names in units]
    modules = dict(denoiser.named_modules())
    watched = {unit: modules[structure.units[unit].name] for row in rows for unit in row}
    watch = _Watch(maker.pipe)
    # A run that goes on from another one's state has nothing to watch before.
    pictures = replace(maker, prefixes=None).pictures(full, inputs, seeds)
    with watch.on(watched), closing(pictures) as batches:
        for _ in batches:
            pass
    changes = np.stack([np.mean([watch.changes(unit, full.steps) for unit in row], axis=0) for row in rows])
    return Sensitivity(tuple(map(tuple, units)), changes, progress_of(watch.timesteps), watch.noise)


def accumulated_change(changes: ArrayLike, compute_steps: Sequence[int], weights: ArrayLike | None = None) -> float:
    """What reusing adds up to: over all steps not computed, the change since the last computed one.

    Args:
        changes: (steps,) relative change at every step.
        compute_steps: Increasing, beginning with 0.
        weights: (steps,) what a change that is missed counts in each step; None counts all alike.
    """
    total, since = 0.0, 0.0
    computing, row = set(compute_steps), _row(changes)
    for step, (change, weight) in enumerate(zip(row, _weights(weights, row), strict=True)):
        since = 0.0 if step in computing else since + float(change)
        total += float(weight) * since
    return total


def best_compute_steps(
    changes: ArrayLike, count: int, required: Collection[int] = (), weights: ArrayLike | None = None
) -> tuple[int, ...]:
    """The ``count`` computing steps with the least :func:`accumulated_change`; of equals the earlier steps.

    Exact, by dynamic programming over the last computed step: O(count * steps^2).

    Args:
        changes: (steps,) relative change at every step; of a rule for several rows their mean.
        count: Computing steps, the required ones among them.
        required: Steps that compute in any case besides the first: where the resolution changes, where guidance
            begins.
        weights: (steps,) what a change that is missed counts in each step; None counts all alike.

    Raises:
        InputError: there are not so many steps, or more are required.
    """
    row = _row(changes)
    steps, fixed = len(row), {0, *required}
    if not all(0 <= step < steps for step in fixed):
        raise InputError(f"required steps {sorted(fixed)} do not all exist; there are {steps} steps")
    if not len(fixed) <= count <= steps:
        raise InputError(f"count is {count}; give a number from the {len(fixed)} required steps to all {steps}")
    gaps = _gap_costs(row, _weights(weights, row), fixed)
    # cost[j]: least cost of the steps before j when j computes and so many computed before it.
    cost = np.full(steps, math.inf)
    cost[0] = 0.0
    previous: list[NDArray[np.intp]] = []
    for _ in range(count - 1):
        through = cost[:, None] + gaps[:, :steps]
        previous.append(through.argmin(axis=0))
        cost = through.min(axis=0)
    last = int((cost + gaps[:, steps]).argmin())
    chosen = [last]
    for best in reversed(previous):
        chosen.append(int(best[chosen[-1]]))
    return tuple(reversed(chosen))


def _gap_costs(changes: Array, weights: Array, fixed: Collection[int]) -> Array:
    """(steps, steps + 1): accumulated change between computing at i and computing at j next; inf where that cannot be.

    The last column is never computing again.
    """
    steps = len(changes)
    costs = np.full((steps, steps + 1), math.inf)
    for first in range(steps):
        since = total = 0.0
        for following in range(first + 1, steps + 1):
            costs[first, following] = total
            if following in fixed or following == steps:
                break
            since += float(changes[following])
            total += float(weights[following]) * since
    return costs


def _weights(weights: ArrayLike | None, row: Array) -> Array:
    found = np.ones_like(row) if weights is None else _row(weights)
    if len(found) != len(row):
        raise InputError(f"there are {len(found)} weights for {len(row)} changes")
    return found


def _row(changes: ArrayLike) -> Array:
    row = np.asarray(changes, dtype=np.float64)
    if row.ndim != 1 or not len(row) or not (np.isfinite(row).all() and (row >= 0).all()):
        raise InputError("changes and weights are one finite number of at least 0 for every step")
    return row


class _Watch:
    """Takes down how outputs change in the pipeline calls that are made meanwhile."""

    def __init__(self, pipe: Any) -> None:
        self._pipe = pipe
        self._sums: dict[tuple[int, int], list[Tensor]] = {}
        self._rows: dict[tuple[int, int], int] = {}
        # By unit and by which call of the denoiser within a step: the step's first call is compared with the last.
        self._before: dict[tuple[int, int], tuple[int, int, list[Tensor]]] = {}
        self._calls: dict[int, tuple[int, int]] = {}
        # Of every step's first call the timestep and the logarithm of noise to signal.
        self._first_calls: dict[int, tuple[float, float]] = {}

    @contextmanager
    def on(self, modules: Mapping[int, nn.Module]) -> Iterator[None]:
        """Watch units by their modules inside a ``with`` block."""
        handles = [
            module.register_forward_hook(lambda _, __, output, unit=unit: self._see(unit, output))
            for unit, module in modules.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._before.clear()

    @property
    def timesteps(self) -> list[float]:
        """Of the first call of every step."""
        return [self._first_calls[step][0] for step in sorted(self._first_calls)]

    @property
    def noise(self) -> Array:
        """(steps,) logarithm of noise to signal as every step begins."""
        return np.array([self._first_calls[step][1] for step in sorted(self._first_calls)])

    def changes(self, unit: int, steps: int) -> Array:
        """(steps,) mean relative change, 0 at the first step."""
        means = [0.0]
        for step in range(1, steps):
            rows = self._rows.get((unit, step), 0)
            means.append(float(torch.stack(self._sums[unit, step]).sum()) / rows if rows else 0.0)
        return np.array(means)

    def _see(self, unit: int, output: Any) -> None:
        session = session_of(self._pipe)
        now = None if session is None else session.step
        if now is None:
            return
        index, order = self._calls.get(unit, (-1, 0))
        branch = order + 1 if index == now.index else 0
        self._calls[unit] = (now.index, branch)
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        before = self._before.get((unit, branch))
        if before is not None and before[0] == now.index - 1 and before[1] == now.step - 1:
            change = _relative_change(tensors, before[2])
            self._sums.setdefault((unit, now.step), []).append(change.sum())
            self._rows[unit, now.step] = self._rows.get((unit, now.step), 0) + len(change)
        if now.step not in self._first_calls:
            if not self._first_calls:
                # Image-to-image leaves out the first steps, at which nothing changes.
                for step in range(now.step):
                    self._take_down(step, step * now.index // now.step)
            self._take_down(now.step, now.index)
        self._before[unit, branch] = (now.index, now.step, tensors)

    def _take_down(self, step: int, call: int) -> None:
        scheduler = self._pipe.scheduler
        signal, noise = level(scheduler, call)
        ratio = math.log(noise / signal) if signal > 0 and noise > 0 else math.copysign(math.inf, noise - signal)
        self._first_calls[step] = float(scheduler.timesteps[call]), min(max(ratio, LEAST_NOISE), _MOST_NOISE)


def _relative_change(now: Sequence[Tensor], before: Sequence[Tensor]) -> Tensor:
    """(rows,) ``||now - before|| / ||now||`` over all tensors of an output."""

    def squares(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([tensor.float().flatten(1).square().sum(1) for tensor in tensors]).sum(0)

    difference = squares([a.float() - b.float() for a, b in zip(now, before, strict=True)])
    size = squares(now)
    return torch.where(size > 0, (difference / size).sqrt(), torch.zeros_like(size))
