"""Units of diffusers' U-Nets: resnets, attention, down- and upsamplers, and the skips between them."""

from __future__ import annotations

from typing import Any

from torch import nn

from autotune.errors import InputError
from autotune.structure import Structure, StructureBuilder

_DOWN_BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D"}
_UP_BLOCKS = {"UpBlock2D", "CrossAttnUpBlock2D"}
_MID_BLOCKS = {"UNetMidBlock2D", "UNetMidBlock2DCrossAttn"}


def unet_structure(unet: nn.Module) -> Structure:
    """Read the data flow off the modules, in the order of ``UNet2DConditionModel.forward``.

    Raises:
        InputError: a block of a class whose data flow is not known here.
    """
    net: Any = unet
    builder = StructureBuilder()
    current = builder.unit("conv_in", "convolution", ())
    skips = [current]

    for position, block in enumerate(net.down_blocks):
        name = f"down_blocks.{position}"
        _check(block, name, _DOWN_BLOCKS)
        units, outputs = [], []
        for layer in range(len(block.resnets)):
            current = builder.unit(f"{name}.resnets.{layer}", "resnet", (current,))
            units.append(current)
            if getattr(block, "has_cross_attention", False):
                current = builder.unit(f"{name}.attentions.{layer}", "attention", (current,))
                units.append(current)
            outputs.append(current)
        for layer in range(len(block.downsamplers or ())):
            current = builder.unit(f"{name}.downsamplers.{layer}", "downsampler", (current,))
            units.append(current)
            outputs.append(current)
        skips += outputs
        builder.block(name, units, outputs)

    if net.mid_block is not None:
        _check(net.mid_block, "mid_block", _MID_BLOCKS)
        current = builder.unit("mid_block.resnets.0", "resnet", (current,))
        units = [current]
        for layer, resnet in enumerate(range(1, len(net.mid_block.resnets))):
            if net.mid_block.attentions[layer] is not None:
                current = builder.unit(f"mid_block.attentions.{layer}", "attention", (current,))
                units.append(current)
            current = builder.unit(f"mid_block.resnets.{resnet}", "resnet", (current,))
            units.append(current)
        builder.block("mid_block", units)

    for position, block in enumerate(net.up_blocks):
        name = f"up_blocks.{position}"
        _check(block, name, _UP_BLOCKS)
        units = []
        for layer in range(len(block.resnets)):
            current = builder.unit(f"{name}.resnets.{layer}", "resnet", (current, skips.pop()))
            units.append(current)
            if getattr(block, "has_cross_attention", False):
                current = builder.unit(f"{name}.attentions.{layer}", "attention", (current,))
                units.append(current)
        for layer in range(len(block.upsamplers or ())):
            current = builder.unit(f"{name}.upsamplers.{layer}", "upsampler", (current,))
            units.append(current)
        builder.block(name, units)

    builder.unit("conv_out", "convolution", (current,))
    return builder.build(size_multiple=2 ** sum(bool(block.downsamplers) for block in net.down_blocks))


def _check(block: nn.Module, name: str, known: set[str]) -> None:
    if type(block).__name__ not in known:
        raise InputError(
            f"{name} is a {type(block).__name__}, whose data flow is not known here; known: {', '.join(sorted(known))}"
        )
