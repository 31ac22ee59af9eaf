"""Taking the time of what runs on a device: single calls, units inside of a denoiser, a pipeline's other parts."""

from __future__ import annotations

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from autotune.plan.structure import Structure


class Clock:
    """Time on a device: marks are put between its operations and compared when all have run."""

    def __init__(self, device: torch.device) -> None:
        self._kind = device.type

    def mark(self) -> Any:
        """The present moment in the order of the device's operations."""
        if self._kind == "cuda":
            event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            event.record()
            return event
        if self._kind == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    def between(self, before: Any, after: Any) -> float:
        """Milliseconds from one mark to another; after :meth:`wait`."""
        return float(before.elapsed_time(after)) if self._kind == "cuda" else float(after - before) * 1000

    def wait(self) -> None:
        """Until everything asked of the device is done."""
        if self._kind == "cuda":
            torch.cuda.synchronize()
        elif self._kind == "mps":
            torch.mps.synchronize()

    def milliseconds(self, run: Callable[[], object]) -> float:
        """One call of ``run``, from when the device is idle until it is idle again."""
        self.wait()
        begin = time.perf_counter()
        run()
        self.wait()
        return (time.perf_counter() - begin) * 1000


class UnitTimer:
    """Marks the time at the beginning and the end of every unit and block."""

    def __init__(self, denoiser: nn.Module, structure: Structure, clock: Clock) -> None:
        self._structure = structure
        self._clock = clock
        modules = dict(denoiser.named_modules())
        names = [unit.name for unit in structure.units] + [block.name for block in structure.blocks]
        self._modules = {name: modules[name] for name in names}
        self._begin: dict[str, Any] = {}
        self._end: dict[str, Any] = {}

    def shares(self, run: Callable[[], object]) -> list[float]:
        """Of one call, the share of its time that belongs to no unit, to each unit and to each block itself."""
        with ExitStack() as stack:
            for name, module in self._modules.items():
                stack.callback(module.register_forward_pre_hook(self._marking(self._begin, name)).remove)
                stack.callback(module.register_forward_hook(self._marking(self._end, name)).remove)
            self._clock.wait()
            begin = self._clock.mark()
            run()
            end = self._clock.mark()
            self._clock.wait()
        total = self._clock.between(begin, end)
        return [ms / total for ms in self._own(total)]

    def _marking(self, marks: dict[str, Any], name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            marks[name] = self._clock.mark()

        return hook

    def _own(self, total: float) -> list[float]:
        """Each time without that of what is inside it."""
        structure = self._structure
        whole = {name: self._clock.between(self._begin[name], self._end[name]) for name in self._modules}
        own, always = dict(whole), total
        block_of = {unit: block.name for block in structure.blocks for unit in block.units}
        for index, (unit, parent) in enumerate(zip(structure.units, structure.parents, strict=True)):
            if parent is not None:
                own[structure.units[parent].name] -= whole[unit.name]
            elif index in block_of:
                own[block_of[index]] -= whole[unit.name]
            else:
                always -= whole[unit.name]
        always -= sum(whole[block.name] for block in structure.blocks)
        return [always, *(own[name] for name in self._modules)]


class Around:
    """Times what a pipeline does before and after denoising."""

    def __init__(self, pipe: Any, clock: Clock) -> None:
        self._clock = clock
        self._owners = {"encode_prompt": pipe, "decode": getattr(pipe, "vae", None)}
        self._taken: dict[str, list[float]] = {name: [] for name in self._owners}

    @property
    def text_encoder_ms(self) -> float:
        return statistics.median(self._taken["encode_prompt"] or [0.0])

    @property
    def decoder_ms(self) -> float:
        return statistics.median(self._taken["decode"] or [0.0])

    @contextmanager
    def timed(self) -> Iterator[None]:
        """While inside, calls of the pipeline's text encoding and decoding are timed."""
        with ExitStack() as stack:
            for name, owner in self._owners.items():
                if hasattr(owner, name):
                    before = vars(owner).get(name)
                    setattr(owner, name, self._timing(name, getattr(owner, name)))
                    stack.callback(_restore, owner, name, before)
            yield

    def _timing(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            result: list[Any] = []
            self._taken[name].append(self._clock.milliseconds(lambda: result.append(method(*args, **kwargs))))
            return result[0]

        return run


def _restore(owner: Any, name: str, before: Any) -> None:
    if before is None:
        delattr(owner, name)
    else:
        setattr(owner, name, before)
