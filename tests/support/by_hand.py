"""What a policy means, done by hand and slowly: no hooks, nothing spared.

Every unit computes in every call; where the policy takes it from memory, what it computed is thrown away and what it
put out earlier takes its place. Guidance that has stopped, or whose last difference of the branches serves again, is
computed all the same, and its unconditional half overwritten. Only reuse, weighted forecasts of outputs and of single
units' residuals, and guidance are done here. Others may move the latents to another size in between: what was kept at
one size is forgotten at the next.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FunctionType
from typing import Any
from unittest.mock import patch

import torch
from diffusers import Kandinsky5Transformer3DModel
from diffusers.models.transformers.transformer_kandinsky import Kandinsky5AttnProcessor
from torch import Tensor, nn
from torch.utils._pytree import tree_map, tree_map_only

from autotune.pipelines.units import find_units
from autotune.policy import CacheRule, Policy


def precise(pipe: Any) -> Any:
    """The pipeline in double precision, and its U-Net, if it has one, less wild.

    Denoisers of random weights amplify the rounding errors of single precision, which some embeddings and schedulers
    compute in all the same: by their attention, which is as good as all or nothing, a million times in four steps.
    """
    if hasattr(pipe, "unet"):
        with torch.no_grad():
            for name, weight in pipe.unet.named_parameters():
                if name == "conv_out.weight" or ".to_k" in name:
                    weight.mul_(0.1)
    transformer = getattr(pipe, "transformer", None)
    if isinstance(transformer, Kandinsky5Transformer3DModel):
        _keep_precision(transformer)
    return pipe.to(torch.float64)


def _keep_precision(transformer: Any) -> None:
    """Times are embedded, and queries and keys turned, in double precision too: Kandinsky 5 has lower ones for both."""
    embed = transformer.time_embeddings.in_layer
    embed.register_forward_pre_hook(lambda layer, given: (given[0].to(layer.weight.dtype),))
    for processor in transformer.attn_processors.values():
        processor.__class__ = _UnroundedProcessor


class _Doubled:
    """``torch`` without the precisions that are named in code."""

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, "float64" if name in ("float32", "bfloat16") else name)


class _UnroundedProcessor(Kandinsky5AttnProcessor):  # type: ignore[misc]
    """Rounded to 8 bits, errors in the last bits of double precision would now and then become large ones."""

    __call__ = FunctionType(
        Kandinsky5AttnProcessor.__call__.__code__,
        {**Kandinsky5AttnProcessor.__call__.__globals__, "torch": _Doubled()},
        argdefs=Kandinsky5AttnProcessor.__call__.__defaults__,
    )


@contextmanager
def by_hand(
    pipe: Any, denoiser: nn.Module, policy: Policy, *, conditional_first: bool, separate: bool
) -> Iterator[Any]:
    """The plain pipeline, to be called once for the policy's steps; how many pictures is set on what is yielded."""
    hand = _Hand(pipe, denoiser, policy, conditional_first, separate)
    hand.begin()
    try:
        yield hand
    finally:
        hand.end()


_Result = tuple[int, int, Any]


class _Hand:
    def __init__(self, pipe: Any, denoiser: nn.Module, policy: Policy, conditional_first: bool, separate: bool) -> None:
        self.pictures = 1
        self.policy, self.denoiser, self.scheduler = policy, denoiser, pipe.scheduler
        self.guider = getattr(pipe, "guider", None)
        # Of its class, for the runtime puts a copy of it in place.
        self._weighing: Any = patch.object(type(self.guider), "forward", lambda *args, **kw: self._weigh(*args, **kw))
        self.conditional_first, self.separate = conditional_first, separate
        # Image-to-image leaves out those before its first.
        self.first_step = self.step = self.branch = 0
        # That the denoiser was given, in all its calls.
        self.rows = 0
        self.fresh, self.single, self.guided, self.stacked = True, False, False, 1
        self.first_output: Any = None
        self.size: Any = None
        self.resized = False
        # By unit and branch what was computed last, each with its step and its number of rows; and once more what was
        # computed last in calls planned for both branches.
        self.memory: dict[tuple[str, int, bool], list[_Result]] = {}
        # The step that was planned for both branches last; of what was computed then, rows and difference.
        self.both: int | None = None
        self.difference: tuple[int, Any] | None = None
        self.planned = self.alone = False
        self._replaced: list[tuple[Any, str, Any]] = []

    def begin(self) -> None:
        modules = dict(self.denoiser.named_modules())
        streams = {unit.name: unit.streams for unit in find_units(self.denoiser).units}
        for rule in self.policy.cache:
            assert rule.mode == "reuse" or rule.weights is not None
            for name in rule.units:
                own = streams[name] if rule.mode == "residual" else ()
                self._replace(modules[name], "forward", self._unit(name, rule, own))
        self._replace(self.denoiser, "forward", self._call)
        self._replace(self.scheduler, "step", self._advance)
        if self.guider is not None:
            self._weighing.start()

    def end(self) -> None:
        if self.guider is not None:
            self._weighing.stop()
        for owner, name, own in reversed(self._replaced):
            if own is None:
                del vars(owner)[name]
            else:
                vars(owner)[name] = own

    def _replace(self, owner: Any, name: str, act: Callable[..., Any]) -> None:
        original = getattr(owner, name)

        def replacement(*args: Any, **kwargs: Any) -> Any:
            return act(original, *args, **kwargs)

        replacement.__wrapped__ = original  # type: ignore[attr-defined]
        # Past nn.Module.__setattr__; most of these had their class's own.
        self._replaced.append((owner, name, vars(owner).get(name)))
        vars(owner)[name] = replacement

    def _single(self, step: int) -> bool:
        guidance = self.policy.guidance
        return guidance is not None and not guidance.start_step <= step < guidance.stop_step

    def _plan_guidance(self, rows: int) -> None:
        """Whether this step is planned for both branches, and whether the conditional one of so many rows does."""
        guidance = self.policy.guidance
        if self.resized:
            self.both = self.difference = None
        asked = guidance is None or guidance.compute_steps is None or self.step in guidance.compute_steps
        self.planned = not self.single and (asked or self.both in (None, self.step))
        if self.planned:
            self.both, self.difference = self.step, None
        self.alone = self.single or (not self.planned and self.difference is not None and self.difference[0] == rows)

    def _advance(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.step, self.branch = self.step + 1, 0
        return original(*args, **kwargs)

    def _weigh(self, guider: Any, pred_cond: Tensor, pred_uncond: Tensor | None = None) -> Any:
        """As a guider does in steps that it does not guide; what it remembers of others is left alone then."""
        if self.single:
            return (pred_cond,)
        if self.resized and guider.momentum_buffer is not None:
            guider.momentum_buffer.running_average = 0
        return self._weighing.temp_original(guider, pred_cond, pred_uncond)

    def _call(self, original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        sample = args[0] if args else next(iter(kwargs.values()))
        self.stacked = len(sample) // self.pictures
        self.rows += len(sample)
        self.single = self._single(self.step)
        if self.step == self.first_step:
            # Of two calls a step the second shows it, before it matters.
            self.guided = self.stacked == 2 or (self.separate and self.branch == 1)
        grew = self.guided and self._single(self.step - 1) and not self.single
        if self.branch == 0:
            size = (sample[0] if isinstance(sample, list) else sample).shape[1:]
            self.resized, self.size = size != self.size, size
        self.fresh = self.step == self.first_step or grew or self.resized
        rows = len(sample) // 2 if self.stacked == 2 else len(sample)
        if self.branch == 0:
            self._plan_guidance(rows)
        output = original(*args, **kwargs)
        self.branch += 1
        if self.separate and self.branch == 1:
            self.first_output = tree_map_only(Tensor, torch.clone, output)
            return output
        if self.separate:
            return self._unconditional(self.first_output, output, rows)
        if self.stacked != 2:
            return output
        first, last = _part(output, slice(0, rows)), _part(output, slice(rows, 2 * rows))
        if self.conditional_first:
            return _joined(first, self._unconditional(first, last, rows))
        return _joined(self._unconditional(last, first, rows), last)

    def _unconditional(self, conditional: Any, computed: Any, rows: int) -> Any:
        """What takes the unconditional branch's place, where it was computed."""
        if self.single:
            return conditional
        factor = 1 if self.policy.guidance is None else self.policy.guidance.factor or 1
        if self.alone:
            assert self.difference is not None
            return tree_map(lambda one, other: one - factor * other, conditional, self.difference[1])
        self.difference = rows, tree_map(torch.sub, conditional, computed)
        if factor == 1:
            return computed
        return tree_map(lambda one, other: (1 - factor) * one + factor * other, conditional, computed)

    def _unit(self, name: str, rule: CacheRule, streams: Sequence[str]) -> Callable[..., Any]:
        """``streams`` are the arguments that are taken off the output and added again, if any."""

        def act(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            bound = inspect.signature(original).bind(*args, **kwargs).arguments
            entry = tree_map_only(Tensor, torch.clone, [bound[stream] for stream in streams])
            output = original(*args, **kwargs)
            rows = _rows(output)
            overwritten = self.alone and self.stacked == 2
            wanted = rows // 2 if overwritten else rows
            if self.alone and self.branch == 1:
                return output
            key = (name, self.branch, self.guided and self.planned)
            if self.fresh or self.step in rule.compute_steps:
                result = _combined((1, -1), output, entry) if streams else output
                for planned in {False, self.planned}:
                    at = (name, self.branch, planned)
                    before = [] if self.fresh else self.memory.get(at, [])
                    self.memory[at] = [*before, (self.step, wanted, self._conditional(result, wanted, rows))]
                return output
            taken = self._taken(rule, self.memory.get(key, []))
            if not taken or any(rows_then < wanted for _, (_, rows_then, _) in taken):
                return output
            weights = [weight for weight, _ in taken]
            parts = [self._conditional(kept, wanted, rows_then) for _, (_, rows_then, kept) in taken]
            found = parts[0] if weights == [1] else _combined(weights, *parts)
            if streams:
                found = _combined((1, 1), found, self._conditional(entry, wanted, rows))
            return tree_map_only(Tensor, lambda part: torch.cat([part, part]), found) if overwritten else found

        return act

    def _taken(self, rule: CacheRule, there: Sequence[_Result]) -> list[tuple[float, _Result]]:
        """What a skipped step takes, with its weight."""
        if rule.weights is None:
            return [(1, each) for each in there[-1:]]
        weights = rule.weights[rule.skipped_steps(self.policy.steps).index(self.step)]
        weighed = [step for step in rule.compute_steps if step < self.step][: -len(weights) - 1 : -1]
        by_step = {each[0]: each for each in there}
        if all(step in by_step for step in weighed):
            return [(weight, by_step[step]) for weight, step in zip(weights, weighed, strict=True)]
        last = there[-len(weights) :]
        at = [step for step, _, _ in last]
        return [
            (math.prod((self.step - other) / (step - other) for other in at if other != step), each)
            for step, each in zip(at, last, strict=True)
        ]

    def _conditional(self, output: Any, wanted: int, rows: int) -> Any:
        part = slice(0, wanted) if self.conditional_first else slice(rows - wanted, rows)
        return tree_map_only(Tensor, lambda tensor: tensor[part].clone(), output)


def _combined(weights: Sequence[float], *outputs: Any) -> Any:
    """The weighted sum; where the first is not a sequence, the others' only entries are meant."""
    if isinstance(outputs[0], tuple):
        return tuple(_combined(weights, *entries) for entries in zip(*outputs, strict=True))
    if outputs[0] is None:
        return None
    tensors = [output if isinstance(output, Tensor) else output[0] for output in outputs]
    return sum(weight * tensor for weight, tensor in zip(weights, tensors, strict=True))


def _rows(output: Any) -> int:
    while not isinstance(output, Tensor):
        output = next(part for part in output if part is not None)
    return len(output)


def _part(output: Any, rows: slice) -> Any:
    """Of all that has rows some of them."""
    if isinstance(output, tuple):
        return tuple(_part(part, rows) for part in output)
    if isinstance(output, dict):
        return type(output)(**{key: _part(part, rows) for key, part in output.items()})
    return output[rows]


def _joined(first: Any, last: Any) -> Any:
    """The inverse of :func:`_part`, of both halves."""
    if isinstance(first, tuple):
        return tuple(_joined(*parts) for parts in zip(first, last, strict=True))
    if isinstance(first, dict):
        return type(first)(**{key: _joined(part, last[key]) for key, part in first.items()})
    return first + last if isinstance(first, list) else torch.cat([first, last])
