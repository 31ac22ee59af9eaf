"""What a pipeline call really computes, seen from outside of whatever replaces the forwards inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.support.watch import FlopCount


@dataclass
class Work:
    """What the calls of a denoiser computed.

    Attributes:
        flops: of all calls together, 0 where they were not counted.
        calls: for every call the linear layers and convolutions that were called, by name. One whose
            own output is taken from a cache counts too; one inside of something that is does not.
        outputs: for every call the outputs of all recorded modules by name, computed or not.
    """

    flops: int = 0
    calls: list[set[str]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)

    def computed(self, layer: str) -> list[int]:
        """The calls of the denoiser in which a layer was called."""
        return [index for index, names in enumerate(self.calls) if layer in names]


@contextmanager
def watched(denoiser: nn.Module, *, flops: bool = False, outputs: tuple[str, ...] = ()) -> Iterator[Work]:
    """Watch every call of ``denoiser``.

    PyTorch's own module hooks run around a forward, whoever has replaced it.

    Args:
        flops: count them, which takes most of the time. Attention then runs in its plain
            implementation: the fused one of the CPU is not counted.
        outputs: names of modules whose outputs are recorded.
    """
    work, counter = Work(), FlopCount()
    counting = ExitStack()
    modules = dict(denoiser.named_modules())

    def before(*_: Any) -> None:
        work.calls.append(set())
        work.outputs.append({})
        if flops:
            counting.enter_context(sdpa_kernel(SDPBackend.MATH))
            counting.enter_context(counter)

    def after(*_: Any) -> None:
        counting.close()
        work.flops = counter.total

    def called(name: str) -> Callable[..., None]:
        return lambda *_: work.calls[-1].add(name)

    def record(name: str) -> Callable[..., None]:
        return lambda _module, _args, output: work.outputs[-1].update({name: output})

    handles = [denoiser.register_forward_pre_hook(before), denoiser.register_forward_hook(after, always_call=True)]
    for name, module in modules.items():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            handles.append(module.register_forward_hook(called(name)))
    handles += [modules[name].register_forward_hook(record(name)) for name in outputs]
    try:
        yield work
    finally:
        for handle in handles:
            handle.remove()
