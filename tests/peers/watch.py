"""What a pipeline call really computes, seen from outside of whatever replaces the forwards inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class _FlopCount(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=output)
        return output


@dataclass
class Work:
    """What the calls of a denoiser computed.

    Attributes:
        flops: of all calls together.
        calls: for every call the names of those watched modules that computed, in order.
        outputs: for every call the outputs of all recorded modules by name, computed or not.
    """

    flops: int = 0
    calls: list[list[str]] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)

    def computed(self, name: str) -> list[int]:
        """The calls in which a watched module computed."""
        return [index for index, names in enumerate(self.calls) if name in names]


@contextmanager
def watched(denoiser: nn.Module, computes: str = "", outputs: tuple[str, ...] = ()) -> Iterator[Work]:
    """Count in every call of ``denoiser``.

    PyTorch's own module hooks run around a forward, whoever has replaced it. Attention runs in the
    plain implementation: the fused one of the CPU is not counted.

    Args:
        computes: how the names of the modules end that are watched: layers deep inside, which
            run only when what they are part of is computed.
        outputs: names of modules whose outputs are recorded.
    """
    work, counter = Work(), _FlopCount()
    entered = ExitStack()
    modules = dict(denoiser.named_modules())

    def before(_module: nn.Module, _args: Any) -> None:
        work.calls.append([])
        work.outputs.append({})
        entered.enter_context(counter)

    def after(*_: Any) -> None:
        entered.close()
        work.flops = counter.total

    def compute(name: str) -> Any:
        return lambda *_: work.calls[-1].append(name)

    def record(name: str) -> Any:
        return lambda _module, _args, output: work.outputs[-1].__setitem__(name, output)

    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        handles = [denoiser.register_forward_pre_hook(before), denoiser.register_forward_hook(after, always_call=True)]
        if computes:
            handles += [
                module.register_forward_hook(compute(name))
                for name, module in modules.items()
                if f".{name}".endswith(f".{computes}")
            ]
        handles += [modules[name].register_forward_hook(record(name)) for name in outputs]
        for handle in handles:
            stack.callback(handle.remove)
        yield work
