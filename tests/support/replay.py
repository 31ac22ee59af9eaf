"""A denoiser call of a tiny pipeline, played again with the outputs of its units held fast."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from autotune.pipelines.families import family_of
from tests.support.builders import TinyFamily


class Call:
    """The arguments of one denoiser call of a pipeline."""

    def __init__(self, tiny: TinyFamily, **overrides: Any) -> None:
        self.pipe = tiny.make()
        self.family = family_of(self.pipe)
        self.denoiser = self.family.denoiser(self.pipe)
        calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        handle = self.denoiser.register_forward_pre_hook(
            lambda module, args, kwargs: calls.append((args, dict(kwargs))), with_kwargs=True
        )
        tiny.run(self.pipe, **tiny.arguments(**{"steps": 2} | overrides))
        handle.remove()
        self.args, self.kwargs = calls[0]

    @property
    def sample(self) -> Any:
        return self.args[0] if self.args else next(iter(self.kwargs.values()))

    def __call__(self) -> Any:
        with torch.no_grad():
            return self.denoiser(*self.args, **self.kwargs)


def completed_order(call: Call, names: set[str]) -> list[str]:
    """Names of modules in the order in which their forwards end."""
    order: list[str] = []
    modules = dict(call.denoiser.named_modules())
    handles = [
        modules[name].register_forward_hook(lambda module, args, output, name=name: order.append(name))
        for name in names
    ]
    call()
    for handle in handles:
        handle.remove()
    return order


def same(one: Any, other: Any) -> bool:
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor))


def disturbed(output: Any) -> Any:
    generator = torch.Generator().manual_seed(0)
    return tree_map_only(Tensor, lambda t: t + torch.randn(t.shape, generator=generator), output)


class Replay:
    """Every unit's output is held at what it was, except one's, which is disturbed; who notices reads it."""

    def __init__(self, call: Call, streams: dict[str, tuple[str, ...]]) -> None:
        self.call = call
        self.streams = streams
        self.outputs: dict[str, Any] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.target: str | None = None
        self.readers: set[str] = set()
        self.streams_from: set[str] = set()
        modules = dict(call.denoiser.named_modules())
        for name in streams:
            self._wrap(name, modules[name])
        self.recording = True
        self.result = call()
        self.recording = False

    def readers_of(self, target: str) -> tuple[set[str], set[str], bool]:
        """Units that take ``target``'s output, units whose streams do, and whether the denoiser's output does."""
        self.target, self.readers, self.streams_from = target, set(), set()
        changed = not same(self.call(), self.result)
        return self.readers, self.streams_from, changed

    def _wrap(self, name: str, module: nn.Module) -> None:
        parameters = list(inspect.signature(module.forward).parameters)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            bound = dict(zip(parameters, args, strict=False)) | kwargs
            entry = {stream: bound[stream] for stream in self.streams[name]}
            if self.recording:
                self.outputs[name] = tree_map_only(Tensor, torch.clone, output)
                self.entries[name] = tree_map_only(Tensor, torch.clone, entry)
                return output
            if not same(output, self.outputs[name]):
                self.readers.add(name)
            if not same(entry, self.entries[name]):
                self.streams_from.add(name)
            return disturbed(self.outputs[name]) if name == self.target else self.outputs[name]

        module.register_forward_hook(hook, with_kwargs=True)
