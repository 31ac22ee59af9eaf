"""Exact FLOPs of every unit of a denoiser, counted on the ``meta`` device without weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autotune.cost.counter import WorkCounter
from autotune.cost.work import Work, WorkTable
from autotune.plan.structure import Structure

T = TypeVar("T")


def count_work(
    denoiser: nn.Module,
    structure: Structure,
    make_inputs: Callable[[Any], Mapping[str, Any]],
    prepare: Callable[[nn.Module], None] | None = None,
) -> WorkTable:
    """Count one forward pass of a weightless copy of ``denoiser``.

    Args:
        make_inputs: gets the denoiser's config and returns the arguments of its forward for one sample; it is called
            with ``meta`` as the default device.
        prepare: makes of the copy what a pipeline makes of its denoiser while a call lasts.
    """
    config: Any = denoiser.config
    skeleton = weightless(denoiser)
    if prepare is not None:
        prepare(skeleton)
    with torch.device("meta"):
        inputs = make_inputs(config)
    modules, counter = dict(skeleton.named_modules()), WorkCounter()
    elements: dict[int, int] = {}

    def entering(index: int) -> Any:
        return lambda module, args: counter.enter(index)

    def leaving(index: int) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            counter.leave()
            elements[index] = _values(output)

        return hook

    for index, unit in enumerate(structure.units):
        modules[unit.name].register_forward_pre_hook(entering(index))
        modules[unit.name].register_forward_hook(leaving(index))
    with counter, torch.no_grad():
        output = skeleton(**inputs)
    units = range(len(structure.units))
    return WorkTable(
        tuple(counter.of(unit) for unit in units),
        tuple(elements[unit] for unit in units),
        counter.of(),
        _values(output),
    )


def weightless(denoiser: Any) -> nn.Module:
    """The denoiser without weights, IP-Adapters included, which are no part of its config."""
    with torch.device("meta"):
        skeleton: Any = type(denoiser).from_config(denoiser.config).eval()
    processors: dict[str, Any] = getattr(denoiser, "attn_processors", {})
    adapted = {name: processor for name, processor in processors.items() if isinstance(processor, nn.Module)}
    if adapted:
        copies = {name: copy.deepcopy(processor).to("meta") for name, processor in adapted.items()}
        skeleton.set_attn_processor(skeleton.attn_processors | copies)
        skeleton.encoder_hid_proj = copy.deepcopy(denoiser.encoder_hid_proj).to("meta")
        skeleton.config.encoder_hid_dim_type = denoiser.config.encoder_hid_dim_type
    return skeleton  # type: ignore[no-any-return]


def _values(output: Any) -> int:
    return sum(leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, Tensor))


def count_call(call: Callable[[], T]) -> tuple[T, Work]:
    """What ``call`` returns, and the work it does; of ``meta`` tensors attention is counted too."""
    with WorkCounter() as counter, torch.no_grad():
        output = call()
    return output, counter.total
