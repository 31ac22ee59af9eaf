"""Exact FLOPs of every unit of a denoiser, counted on the ``meta`` device without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from autotune.structure import Structure

# The papers' "MACs" are those of convolutions and linear layers; attention products are left out.
_CONV_LINEAR = {torch.ops.aten.convolution, torch.ops.aten._convolution, torch.ops.aten.addmm, torch.ops.aten.mm}


@dataclass(frozen=True)
class Work:
    """Arithmetic of one forward pass for one sample.

    ``flops``: two per multiply-add, attention products included. ``macs_conv_linear``:
    multiply-adds of convolutions and linear layers only, as T-GATE and PostDiff print them.
    """

    flops: int
    macs_conv_linear: int

    def __sub__(self, other: Work) -> Work:
        return Work(self.flops - other.flops, self.macs_conv_linear - other.macs_conv_linear)


@dataclass(frozen=True)
class WorkTable:
    """Work and output size of every unit at one latent size, and the work no unit contains.

    ``units`` and ``elements`` follow the structure's units; ``elements`` is the number of
    values in a unit's output for one sample. ``always`` (timestep embedding and the like) is
    computed in every step.
    """

    units: tuple[Work, ...]
    elements: tuple[int, ...]
    always: Work


def count_work(denoiser: nn.Module, structure: Structure, height: int, width: int, text_tokens: int) -> WorkTable:
    """Count one forward pass of a weightless copy of ``denoiser`` at latents of ``height`` x ``width``."""
    config: Any = denoiser.config
    with torch.device("meta"):
        skeleton: nn.Module = type(denoiser).from_config(config).eval()  # type: ignore[attr-defined]
        inputs = (
            torch.empty(1, config.in_channels, height, width),
            torch.empty(1),
            torch.empty(1, text_tokens, config.cross_attention_dim),
        )
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
        skeleton(*inputs)
    counts = counter.get_flop_counts()
    prefix = type(skeleton).__name__
    units = tuple(_work(counts.get(f"{prefix}.{unit.name}", {})) for unit in structure.units)
    always = _work(counts["Global"])
    for work in units:
        always = always - work
    return WorkTable(units, tuple(elements[unit.name] for unit in structure.units), always)


def _work(counts: Mapping[Any, int]) -> Work:
    conv_linear = sum(count for operation, count in counts.items() if operation in _CONV_LINEAR)
    return Work(sum(counts.values()), conv_linear // 2)
