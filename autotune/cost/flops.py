"""Exact FLOPs of every unit of a denoiser, counted on the ``meta`` device without weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from autotune.cost.work import Work, WorkTable
from autotune.plan.structure import Structure

T = TypeVar("T")

# The papers' "MACs" are those of convolutions and linear layers; attention products are left out.
_CONV_LINEAR = {torch.ops.aten.convolution, torch.ops.aten._convolution, torch.ops.aten.addmm, torch.ops.aten.mm}


def count_work(denoiser: nn.Module, structure: Structure, make_inputs: Callable[[Any], Mapping[str, Any]]) -> WorkTable:
    """Count one forward pass of a weightless copy of ``denoiser``.

    ``make_inputs`` gets the denoiser's config and returns the arguments of its forward for one
    sample; it is called with ``meta`` as the default device.
    """
    config: Any = denoiser.config
    skeleton = weightless(denoiser)
    with torch.device("meta"):
        inputs = make_inputs(config)
    modules = dict(skeleton.named_modules())
    elements: dict[str, int] = {}

    def note_size(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            elements[name] = sum(leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, Tensor))

        return hook

    for unit in structure.units:
        modules[unit.name].register_forward_hook(note_size(unit.name))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        skeleton(**inputs)
    counts = counter.get_flop_counts()
    prefix = type(skeleton).__name__
    with_parts = [_work(counts.get(f"{prefix}.{unit.name}", {})) for unit in structure.units]
    own, always = list(with_parts), _work(counts["Global"])
    for work, parent in zip(with_parts, structure.parents, strict=True):
        if parent is None:
            always = always - work
        else:
            own[parent] = own[parent] - work
    return WorkTable(tuple(own), tuple(elements[unit.name] for unit in structure.units), always)


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


def count_call(call: Callable[[], T]) -> tuple[T, Work]:
    """What ``call`` returns, and the work it does; of ``meta`` tensors attention is counted too."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        output = call()
    return output, _work(counter.get_flop_counts().get("Global", {}))


def _work(counts: Mapping[Any, int]) -> Work:
    conv_linear = sum(count for operation, count in counts.items() if operation in _CONV_LINEAR)
    return Work(sum(counts.values()), conv_linear // 2)
