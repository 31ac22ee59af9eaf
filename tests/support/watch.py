"""What really happens in a pipeline's denoiser, seen from under the hooks of a policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from autotune.plan.structure import Structure
from autotune.runtime.apply import session_of


class FlopCount(TorchDispatchMode):
    """What ``FlopCounterMode`` counts, without following modules, which takes most of its time."""

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
class Watch:
    """What really happens in a pipeline's denoiser, seen from under the hooks.

    Attributes:
        flops: inside the denoiser's own forward.
        executed: for every step the units whose own forward ran.
        kept: bytes of kept features after every call of the denoiser.
    """

    pipe: Any
    denoiser: torch.nn.Module
    structure: Structure
    flops: int = 0
    executed: list[set[str]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def __enter__(self) -> Watch:
        modules = dict(self.denoiser.named_modules())
        self._counter = FlopCount()
        self._wrap(self.denoiser, self._counting(self.denoiser.forward))
        for unit in self.structure.units:
            self._wrap(modules[unit.name], self._noting(unit.name, modules[unit.name].forward))
        return self

    def __exit__(self, *_: Any) -> None:
        for module in (self.denoiser, *self.denoiser.modules()):
            vars(module).pop("forward", None)

    def follow_session(self) -> None:
        """Once the policy is applied."""
        session = session_of(self.pipe)
        assert session is not None
        enter, leave = session.enter, session.leave

        def entering(branch: int, *args: Any) -> None:
            if branch == 0:
                self.executed.append(set())
            enter(branch, *args)

        def leaving(*args: Any) -> None:
            leave(*args)
            self.kept.append(session.kept_bytes())

        session.enter, session.leave = entering, leaving  # type: ignore[method-assign, assignment]

    @staticmethod
    def _wrap(module: torch.nn.Module, forward: Any) -> None:
        forward.__wrapped__ = module.forward
        module.forward = forward

    def _counting(self, forward: Any) -> Any:
        def counting(*args: Any, **kwargs: Any) -> Any:
            with self._counter:
                output = forward(*args, **kwargs)
            self.flops = self._counter.total
            return output

        return counting

    def _noting(self, unit: str, forward: Any) -> Any:
        def noting(*args: Any, **kwargs: Any) -> Any:
            self.executed[-1].add(unit)
            return forward(*args, **kwargs)

        return noting


def shadowing(instance: Any) -> set[str]:
    """What an instance has in place of its class's, and what this package leaves in it."""
    return {name for name in vars(instance) if hasattr(type(instance), name) or "postdiff" in name or "__" in name}


def traces(pipe: Any) -> Mapping[str, Any]:
    """Everything by which a policy could be seen in the instances of a pipeline."""
    modules = [
        (f"{part}.{path}", module)
        for part, component in pipe.components.items()
        if isinstance(component, torch.nn.Module)
        for path, module in component.named_modules()
    ]
    names = {path: sorted(set(vars(module)) & {"forward", "_diffusers_hook"}) for path, module in modules}
    return {
        "hooks": {path: found for path, found in names.items() if found},
        "pipe": shadowing(pipe),
        "scheduler": (id(pipe.scheduler), shadowing(pipe.scheduler)),
    }
