"""Fits the weights of a policy's forecasts to its own full run: what its units put out where nothing is reused."""

from __future__ import annotations

import inspect
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autotune.core.errors import InputError
from autotune.evaluation.generation import PictureMaker
from autotune.evaluation.inputs import Row
from autotune.evaluation.pictures import picture_batches
from autotune.pipelines.families import family_of
from autotune.pipelines.units import find_units
from autotune.plan import Rule, resolve_rules, taken_at
from autotune.plan.lifetimes import weighed_calls
from autotune.plan.structure import Structure
from autotune.policy import CacheRule, Policy, lowest_version
from autotune.runtime import applied
from autotune.runtime.apply import session_of
from autotune.runtime.hooks import residual_of
from autotune.runtime.models import denoiser_of, root_of
from autotune.runtime.snapshot import cloned
from autotune.search.least_squares import RIDGE, NormalEquations, check_terms

TERMS = (2, 3)
"""Numbers of weights to choose from; one weight only scales what reuse takes."""

DIGITS = 5
"""Decimal places of weights: files stay small, and forecasts change by less than outputs of half precision tell."""

# Of results that no call had; nothing is known, and the newest is reused.
_UNKNOWN = (1.0,)


def fitted_policy(
    maker: PictureMaker,
    policy: Policy,
    inputs: Sequence[Row],
    seeds: Sequence[int],
    *,
    terms: int | None = None,
    ridge: float = RIDGE,
) -> Policy:
    """The policy with fitted weights in all of its cache rules of modes ``forecast`` and ``residual``.

    The pipeline runs once for all inputs under the policy without its cache rules: at its steps, noise levels, sizes
    and guidance. Of a rule's units, all of which share the weights, it holds the last ``terms`` computed results in
    memory, as much as running under the policy takes, and of each skipped step inner products.

    Without ``terms`` it fits two weights a step and three, runs under both, and takes those whose pictures are closer
    to the full run's. Three fit full runs better, but errors compound along a run, which no full run shows.

    Where steps call the denoiser twice, their weights are fitted to both calls. Steps that the maker's calls leave out
    (``strength``) get the weight 1 of the newest result.

    Args:
        maker: Makes the pictures.
        policy: What is fitted. Orders and weights that it has are replaced; of its records the model stays.
        inputs: A few.
        seeds: As many.
        terms: Most weights of a step, 1 to 3; as many as there are results where these are fewer.
        ridge: See :meth:`autotune.search.least_squares.NormalEquations.weights`.

    Returns:
        A policy of version 3.

    Raises:
        PolicyError: the pipeline cannot run under the policy, or with weights a rule must compute in further steps.
        InputError: there is nothing to fit, or nothing to fit it to.
    """
    choices = TERMS if terms is None else (terms,)
    for each in choices:
        check_terms(each, ridge)
    if not inputs:
        raise InputError("weights are fitted to full runs of at least one input")
    numbers = [
        number
        for number, rule in enumerate(policy.cache)
        if rule.mode != "reuse" and len(rule.compute_steps) < policy.steps
    ]
    if not numbers:
        raise InputError(
            "the policy has nothing to fit: no cache rule of mode 'forecast' or 'residual' that leaves a step out"
        )
    # By their numbers of weights, which a short schedule may leave no choice of.
    shapes: list[Policy] = []
    for each in choices:
        counts = {number: _counts(policy, policy.cache[number], each) for number in numbers}
        shape = _with_weights(policy, {number: tuple((1.0,) * count for count in counts[number]) for number in numbers})
        if shape not in shapes:
            shapes.append(shape)
    # Every refusal comes before the first picture.
    for shape in shapes:
        maker.check(shape)
    structure = find_units(root_of(denoiser_of(maker.pipe)))
    recorders = [_Recorder(maker.pipe, shape, structure, frozenset(numbers)) for shape in shapes]
    exact = _pictures(maker, _with_weights(policy, {}, cached=False), inputs, seeds, recorders)
    if not any(recorder.samples for recorder in recorders):
        raise InputError("no step of the calls takes what a step before it has computed: there is nothing to fit")
    fitted = [
        _with_weights(
            policy,
            {
                number: tuple(recorder.weights(number, step, ridge) for step in rule.skipped_steps(policy.steps))
                for number in numbers
                for rule in (policy.cache[number],)
            },
        )
        for recorder in recorders
    ]
    if len(fitted) == 1:
        return fitted[0]
    return min(fitted, key=lambda each: distance(_pictures(maker, each, inputs, seeds), exact))


def distance(pictures: Tensor, exact: Tensor) -> float:
    """Mean over pictures of the logarithm of squared distances, (N, 3, H, W) uint8: none of them decides alone.

    Where an early error makes another picture of one, its distance is a hundred times that of others.
    """
    squared = (pictures.double() - exact.double()).square().flatten(1).sum(1)
    # Where nothing differs, the logarithm is 0.
    return float(squared.log1p().mean())


def _pictures(
    maker: PictureMaker,
    policy: Policy,
    inputs: Sequence[Row],
    seeds: Sequence[int],
    recorders: Sequence[_Recorder] = (),
) -> Tensor:
    """(N, 3, H, W) uint8, of calls that are made from their start.

    A call that goes on from another one's state has nothing to record before, hence not by the maker.
    """
    with ExitStack() as stack:
        stack.enter_context(applied(maker.pipe, policy))
        for recorder in recorders:
            stack.enter_context(recorder.on())
        batches = picture_batches(
            maker.pipe,
            inputs,
            seeds,
            height=maker.height,
            width=maker.width,
            guidance_scale=maker.guidance_scale,
            batch_size=maker.batch_size,
            shared=maker.call,
        )
        return torch.cat(list(batches))


def _counts(policy: Policy, rule: CacheRule, terms: int) -> list[int]:
    """For each skipped step of a rule how many weights it has."""
    forced = [0, *(stage.until_step for stage in policy.resolution)]
    if policy.guidance is not None:
        forced.append(policy.guidance.start_step)
    counts = []
    for step in rule.skipped_steps(policy.steps):
        since = max(each for each in forced if each <= step)
        there = bisect_left(rule.compute_steps, step) - bisect_left(rule.compute_steps, since)
        # Where there is none, a forced step is not listed, and the policy is refused.
        counts.append(max(1, min(terms, there)))
    return counts


def _with_weights(
    policy: Policy, weights: Mapping[int, tuple[tuple[float, ...], ...]], *, cached: bool = True
) -> Policy:
    """The policy with weights in cache rules by number, or without cache rules; without what it was measured to be."""
    rules = [
        CacheRule(**{**dict(rule), "order": None, "weights": weights[number]}) if number in weights else rule
        for number, rule in enumerate(policy.cache)
    ]
    cache = tuple(rules) if cached else ()
    gone = dict.fromkeys(("budget", "cost", "quality", "provenance"))
    return Policy(**{**dict(policy), **gone, "cache": cache, "version": lowest_version(None, cache)})


class _Recorder:
    """Sums inner products of results along the pipeline calls that are made meanwhile."""

    def __init__(self, pipe: Any, policy: Policy, structure: Structure, numbers: frozenset[int]) -> None:
        self._pipe = pipe
        self._policy = policy
        self._structure = structure
        self._conditional_first = family_of(pipe).conditional_first
        rules = resolve_rules(policy, structure)
        # resolve_rules keeps the policy's rules in their order.
        self._rules: dict[int, Rule] = {number: rules[number] for number in sorted(numbers)}
        self._owner = {unit: number for number, rule in self._rules.items() for unit in rule.units}
        self._needed = {
            step: structure.needed(taken_at(step, rules, structure))
            for step in range(policy.steps)
            if any(step in rule.weights for rule in self._rules.values())
        }
        self._equations: dict[tuple[int, int], NormalEquations] = {}
        # Results of computing steps by (unit, branch), then call.
        self._results: dict[tuple[int, int], dict[int, list[Tensor]]] = {}
        self._entries: dict[int, tuple[Any, ...]] = {}
        self._calls: dict[int, tuple[int, int]] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        """Record inside a ``with`` block."""
        modules = dict(root_of(denoiser_of(self._pipe)).named_modules())
        handles = []
        for unit, number in self._owner.items():
            rule = self._rules[number]
            if rule.mode == "residual":
                handles.append(self._note_entries(rule.units[unit], modules))
            module = modules[self._structure.units[unit].name]
            handles.append(module.register_forward_hook(lambda _, __, output, unit=unit: self._see(unit, output)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._results.clear()
            self._entries.clear()

    @property
    def samples(self) -> int:
        """Rows that something was fitted to."""
        return sum(equations.samples for equations in self._equations.values())

    def weights(self, number: int, step: int, ridge: float) -> tuple[float, ...]:
        """Rounded, without zeros at the end."""
        equations = self._equations.get((number, step))
        if equations is None or not equations.samples:
            return _UNKNOWN
        found = [round(float(weight), DIGITS) for weight in equations.weights(ridge)]
        while len(found) > 1 and found[-1] == 0:
            found.pop()
        return tuple(found)

    def _note_entries(self, first: int, modules: Mapping[str, nn.Module]) -> Any:
        unit = self._structure.units[first]
        module = modules[unit.name]
        names = list(inspect.signature(module.forward).parameters)

        def note(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            values = (kwargs[name] if name in kwargs else args[names.index(name)] for name in unit.streams)
            self._entries[first] = cloned(tuple(values))

        return module.register_forward_pre_hook(note, with_kwargs=True)

    def _see(self, unit: int, output: Any) -> None:
        session = session_of(self._pipe)
        now = None if session is None else session.step
        if session is None or now is None:
            return
        calls = session.call.calls
        assert calls is not None
        index, order = self._calls.get(unit, (-1, 0))
        branch = order + 1 if index == now.index else 0
        self._calls[unit] = (now.index, branch)
        number = self._owner[unit]
        rule = self._rules[number]
        computes = now.step in rule.compute_steps
        if not computes and unit not in self._needed[now.step]:
            return
        if rule.mode == "residual":
            output = residual_of(output, self._entries[rule.units[unit]])
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        if now.index == session.call.start:
            self._results.pop((unit, branch), None)
        results = self._results.setdefault((unit, branch), {})
        steps = [step for step, count in enumerate(calls) for _ in range(count)]
        if computes:
            results[now.index] = cloned(tensors)
            self._forget(results, steps, now.step)
            return
        weighed = weighed_calls(rule.compute_steps, len(rule.weights[now.step]), now.index, steps)
        if all(call in results for call in weighed):
            earlier = [
                [self._rows_of(now, then) for now, then in zip(tensors, results[call], strict=True)] for call in weighed
            ]
            equations = self._equations.setdefault((number, now.step), NormalEquations(len(weighed)))
            equations.add(tensors, earlier)

    def _forget(self, results: dict[int, list[Tensor]], steps: Sequence[int], step: int) -> None:
        """Keep what a further step may weigh."""
        most = max(len(weights) for rule in self._rules.values() for weights in rule.weights.values())
        kept = sorted({steps[call] for call in results})[-most:]
        for call in [call for call in results if steps[call] not in kept]:
            del results[call]

    def _rows_of(self, now: Tensor, then: Tensor) -> Tensor:
        """Of an earlier result the rows that there still are: where guidance has stopped, the conditional half."""
        rows = len(now)
        return then if len(then) == rows else then[:rows] if self._conditional_first else then[-rows:]
