"""Units of diffusers' U-Nets: resnets, attention and what is inside it, down- and upsamplers, and the skips."""

from __future__ import annotations

from typing import Any

from torch import nn

from autotune.core.errors import InputError
from autotune.pipelines.units.transformer import UNET_CHAIN, add_block
from autotune.plan.structure import Structure, StructureBuilder

_DOWN_BLOCKS = {"DownBlock2D", "CrossAttnDownBlock2D", "AttnDownBlock2D"}
_UP_BLOCKS = {"UpBlock2D", "CrossAttnUpBlock2D", "AttnUpBlock2D"}
_RESNETS = {"ResnetBlock2D", "ResnetBlockCondNorm2D"}
_ATTENTIONS = {"Transformer2DModel", "DualTransformer2DModel", "Attention"}
_MID_BLOCKS = {"UNetMidBlock2D", "UNetMidBlock2DCrossAttn"}


def unet_structure(unet: nn.Module) -> Structure:
    """Read the data flow off the modules, in the order of the forward of ``UNet2DConditionModel`` and ``UNet2DModel``.

    Any module may take the place of a resnet or an attention: of a class that is not known it is one opaque unit.

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
        first = current + 1
        outputs = []
        for layer, resnet in enumerate(block.resnets):
            current = _resnet(builder, f"{name}.resnets.{layer}", resnet, (current,))
            current = _attention(builder, f"{name}.attentions.{layer}", _attention_of(block, layer), current)
            outputs.append(current)
        for layer in range(len(block.downsamplers or ())):
            current = builder.unit(f"{name}.downsamplers.{layer}", "downsampler", (current,))
            outputs.append(current)
        skips += outputs
        builder.block(name, range(first, current + 1), outputs)

    if net.mid_block is not None:
        _check(net.mid_block, "mid_block", _MID_BLOCKS)
        first = current + 1
        current = _resnet(builder, "mid_block.resnets.0", net.mid_block.resnets[0], (current,))
        for layer, resnet in enumerate(net.mid_block.resnets[1:]):
            current = _attention(builder, f"mid_block.attentions.{layer}", _attention_of(net.mid_block, layer), current)
            current = _resnet(builder, f"mid_block.resnets.{layer + 1}", resnet, (current,))
        builder.block("mid_block", range(first, current + 1))

    for position, block in enumerate(net.up_blocks):
        name = f"up_blocks.{position}"
        _check(block, name, _UP_BLOCKS)
        first = current + 1
        for layer, resnet in enumerate(block.resnets):
            current = _resnet(builder, f"{name}.resnets.{layer}", resnet, (current, skips.pop()))
            current = _attention(builder, f"{name}.attentions.{layer}", _attention_of(block, layer), current)
        for layer in range(len(block.upsamplers or ())):
            current = builder.unit(f"{name}.upsamplers.{layer}", "upsampler", (current,))
        builder.block(name, range(first, current + 1))

    builder.unit("conv_out", "convolution", (current,))
    return builder.build(size_multiple=2 ** sum(bool(block.downsamplers) for block in net.down_blocks))


def _resnet(builder: StructureBuilder, name: str, resnet: Any, taken: tuple[int, ...]) -> int:
    if _class_of_forward(resnet) not in _RESNETS:
        return builder.unit(name, "resnet", taken, opaque=type(resnet).__name__)
    # With a skip concatenated to its input, or another number of channels, a resnet has no stream that goes through.
    if len(taken) > 1 or resnet.in_channels != resnet.out_channels:
        return builder.unit(name, "resnet", taken)
    return builder.unit(name, "resnet", taken, inputs=taken, streams=("input_tensor",))


def _attention_of(block: Any, layer: int) -> Any:
    attentions = getattr(block, "attentions", None)
    return attentions[layer] if attentions else None


def _attention(builder: StructureBuilder, name: str, attention: Any, current: int) -> int:
    """Add an attention with the transformer blocks in it, if any; return the index of what goes on."""
    if attention is None:
        return current
    taken = (current,)
    kind = _class_of_forward(attention)
    if kind not in _ATTENTIONS:
        return builder.unit(name, "attention", taken, opaque=type(attention).__name__)
    if kind != "Transformer2DModel":
        return builder.unit(name, "attention", taken, inputs=taken, streams=("hidden_states",))
    inner = taken
    for position, block in enumerate(attention.transformer_blocks):
        inner = (add_block(builder, f"{name}.transformer_blocks.{position}", block, UNET_CHAIN, inner),)
    reads = (*taken, *(unit for unit in inner if unit not in taken))
    return builder.unit(name, "attention", reads, inputs=taken, streams=("hidden_states",))


def _class_of_forward(module: nn.Module) -> str:
    """The class whose forward the module runs: a subclass may keep it."""
    return next(parent.__name__ for parent in type(module).__mro__ if "forward" in vars(parent))


def _check(block: nn.Module, name: str, known: set[str]) -> None:
    if type(block).__name__ not in known:
        raise InputError(
            f"{name} is a {type(block).__name__}, whose data flow is not known here; known: {', '.join(sorted(known))}"
        )
