"""Units of diffusers' transformers: blocks, the attention and feed-forward layers in them, and the chains they form.

One table says for every known class which lists of blocks run in which order and what reads what.
Work outside of the blocks (embeddings, the last norm and projection) belongs to no unit.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from autotune.core.errors import InputError
from autotune.plan.structure import Structure, StructureBuilder

SELF, CROSS, JOINT, FEED_FORWARD = "self-attention", "cross-attention", "joint-attention", "feed-forward"


@dataclass(frozen=True)
class Part:
    """A layer of a block.

    Attributes:
        attribute: its name in the block; a block that lacks it, or holds None there, has no such unit.
        kind: its role.
        reads: attributes of the parts before it whose outputs it takes, besides the block's own input.
        context: names of the chains whose last blocks it takes besides.
    """

    attribute: str
    kind: str
    reads: tuple[str, ...] = ()
    context: tuple[str, ...] = ()


@dataclass(frozen=True)
class Chain:
    """A list of blocks, each of which takes the output of the one before.

    Attributes:
        name: of the ``nn.ModuleList`` in the denoiser.
        parts: the layers of every block in order of execution.
        streams: names of the block's arguments that its outputs replace, in the order of the outputs.
        reads: attributes of the parts whose outputs the block adds up itself; the others reach its
            output only through later parts.
        follows: names of the chains whose last blocks the first block takes.
        skip: the earlier block of this chain that the block at a position (of so many) also takes, or None.
    """

    name: str
    parts: tuple[Part, ...]
    streams: tuple[str, ...]
    reads: tuple[str, ...]
    follows: tuple[str, ...] = ()
    skip: Callable[[int, int], int | None] | None = None


@dataclass(frozen=True)
class Architecture:
    """The chains of a denoiser in order of execution.

    ``size_multiple`` is what the sides of the latents must be divisible by; None: its patch size.
    """

    chains: tuple[Chain, ...]
    size_multiple: int | None = None


def _skip_in_second_half(position: int, length: int) -> int | None:
    """HunyuanDiT's long skips: the last block takes the output of the first, the last but one of the second, ..."""
    return length - 1 - position if position > length // 2 else None


_HIDDEN = ("hidden_states",)
_TEXT_AND_HIDDEN = ("encoder_hidden_states", "hidden_states")
_HIDDEN_AND_TEXT = ("hidden_states", "encoder_hidden_states")
# Self-attention, cross-attention and feed-forward one after the other, all on one residual stream.
_SEQUENTIAL = (
    Part("attn1", SELF),
    Part("attn2", CROSS, ("attn1",)),
    Part("ff", FEED_FORWARD, ("attn1", "attn2")),
)
_SEQUENTIAL_READS = ("attn1", "attn2", "ff")
# Text and image in streams of their own that meet in the attention.
_TWO_STREAMS = (
    Part("attn", JOINT),
    Part("ff", FEED_FORWARD, ("attn",)),
    Part("ff_context", FEED_FORWARD, ("attn",)),
)


def _sequential(name: str, skip: Callable[[int, int], int | None] | None = None) -> Architecture:
    return Architecture((Chain(name, _SEQUENTIAL, _HIDDEN, _SEQUENTIAL_READS, skip=skip),))


def _refined(attention: str, stream: str, first: str, second: str) -> Architecture:
    """Refiners of image and text each for itself, then a chain over both."""

    def chain(name: str, kind: str, follows: tuple[str, ...] = ()) -> Chain:
        parts = (Part(attention, kind), Part("feed_forward", FEED_FORWARD, (attention,)))
        return Chain(name, parts, (stream,), (attention, "feed_forward"), follows)

    return Architecture((chain(first, SELF), chain(second, SELF), chain("layers", JOINT, (first, second))))


def _refined_text(text: str, picture: str) -> Architecture:
    """A chain that refines the text, which the cross-attention of every block of the picture's chain then reads."""
    attention, cross, feed_forward = "self_attention", "cross_attention", "feed_forward"
    alone = (Part(attention, SELF), Part(feed_forward, FEED_FORWARD, (attention,)))
    reading = (
        Part(attention, SELF),
        Part(cross, CROSS, (attention,), context=(text,)),
        Part(feed_forward, FEED_FORWARD, (attention, cross)),
    )
    return Architecture(
        (
            Chain(text, alone, ("x",), (attention, feed_forward)),
            Chain(picture, reading, ("visual_embed",), (attention, cross, feed_forward)),
        )
    )


def _flux(
    single_streams: tuple[str, ...],
    streams: tuple[str, ...] = _TEXT_AND_HIDDEN,
    # The pipeline packs 2x2 latents into a token; the transformer itself takes tokens one by one.
    size_multiple: int | None = 2,
) -> Architecture:
    """Text and image in streams of their own, then in one or two that single blocks join."""
    return Architecture(
        (
            Chain("transformer_blocks", _TWO_STREAMS, streams, ("attn", "ff", "ff_context")),
            Chain(
                "single_transformer_blocks",
                (Part("proj_mlp", FEED_FORWARD), Part("attn", JOINT)),
                single_streams,
                ("proj_mlp", "attn"),
                follows=("transformer_blocks",),
            ),
        ),
        size_multiple=size_multiple,
    )


ARCHITECTURES: dict[str, Architecture] = {
    "PixArtTransformer2DModel": _sequential("transformer_blocks"),
    "DiTTransformer2DModel": _sequential("transformer_blocks"),
    "SanaTransformer2DModel": _sequential("transformer_blocks"),
    "HunyuanDiT2DModel": _sequential("blocks", _skip_in_second_half),
    "WanTransformer3DModel": Architecture(
        (
            Chain(
                "blocks",
                (*_SEQUENTIAL[:2], Part("ffn", FEED_FORWARD, ("attn1", "attn2"))),
                _HIDDEN,
                ("attn1", "attn2", "ffn"),
            ),
        )
    ),
    "SD3Transformer2DModel": Architecture(
        (
            Chain(
                "transformer_blocks",
                (
                    Part("attn", JOINT),
                    Part("attn2", SELF),
                    Part("ff", FEED_FORWARD, ("attn", "attn2")),
                    Part("ff_context", FEED_FORWARD, ("attn",)),
                ),
                _TEXT_AND_HIDDEN,
                ("attn", "attn2", "ff", "ff_context"),
            ),
        )
    ),
    "FluxTransformer2DModel": _flux(_TEXT_AND_HIDDEN),
    "ChromaTransformer2DModel": _flux(_HIDDEN),
    # Its single blocks have one layer each, attention and feed-forward in one.
    "Flux2Transformer2DModel": _flux(_HIDDEN),
    # Of patches of its own; the text's refiner, which takes no picture, belongs to no unit.
    "HunyuanImageTransformer2DModel": _flux(_HIDDEN_AND_TEXT, _HIDDEN_AND_TEXT, size_multiple=None),
    "AuraFlowTransformer2DModel": Architecture(
        (
            # The attention's output is added before the norm only: the block itself takes the feed-forward alone.
            Chain("joint_transformer_blocks", _TWO_STREAMS, _TEXT_AND_HIDDEN, ("ff", "ff_context")),
            Chain(
                "single_transformer_blocks",
                (Part("attn", JOINT), Part("ff", FEED_FORWARD, ("attn",))),
                _HIDDEN,
                ("ff",),
                follows=("joint_transformer_blocks",),
            ),
        )
    ),
    "QwenImageTransformer2DModel": Architecture(
        (
            Chain(
                "transformer_blocks",
                (
                    Part("attn", JOINT),
                    Part("img_mlp", FEED_FORWARD, ("attn",)),
                    Part("txt_mlp", FEED_FORWARD, ("attn",)),
                ),
                _TEXT_AND_HIDDEN,
                ("attn", "img_mlp", "txt_mlp"),
            ),
        )
    ),
    # One feed-forward layer serves text and picture, one after the other, so it is no unit.
    "CogView4Transformer2DModel": Architecture(
        (Chain("transformer_blocks", (Part("attn1", JOINT),), _TEXT_AND_HIDDEN[::-1], ("attn1",)),)
    ),
    "Kandinsky5Transformer3DModel": _refined_text("text_transformer_blocks", "visual_transformer_blocks"),
    "Lumina2Transformer2DModel": _refined("attn", "hidden_states", "context_refiner", "noise_refiner"),
    "ZImageTransformer2DModel": _refined("attention", "x", "noise_refiner", "context_refiner"),
}


def transformer_structure(denoiser: nn.Module) -> Structure:
    """The structure of a transformer that the table lists."""
    return _build(denoiser, ARCHITECTURES[type(denoiser).__name__])


def generic_structure(denoiser: nn.Module) -> Structure:
    """The structure of a transformer nobody listed, read off its lists of blocks.

    Lists are taken to run in the order of their definition, blocks one after the other, and
    layers in the order of their definition too. Where that may leave something out (several
    lists, long skips) more is read than needed rather than less.

    Raises:
        InputError: no list of blocks is found.
    """
    name = type(denoiser).__name__
    chains: list[Chain] = []
    for attribute, child in denoiser.named_children():
        if isinstance(child, nn.ModuleList) and len(child) > 1 and len({type(block) for block in child}) == 1:
            parts = _guess_parts(child[0])
            if parts:
                attributes = tuple(part.attribute for part in parts)
                follows = tuple(chain.name for chain in chains)
                chains.append(Chain(attribute, parts, _guess_streams(child[0]), attributes, follows))
    if hasattr(denoiser, "down_blocks") or not chains:
        raise InputError(
            f"{name} has no units that can be found: neither a known class ({', '.join(sorted(ARCHITECTURES))},"
            " UNet2DConditionModel, UNet2DModel) nor a list of at least two alike blocks with attention or"
            " feed-forward layers (an nn.ModuleList at its top level); use a pipeline with such a denoiser"
        )
    return _build(denoiser, Architecture(tuple(chains)))


def add_block(
    builder: StructureBuilder,
    name: str,
    block: nn.Module,
    chain: Chain,
    stream: tuple[int, ...],
    skips: tuple[int, ...] = (),
    ends: Mapping[str, tuple[int, ...]] = {},
) -> int:
    """Add a block's layers and then the block itself; return the block's index.

    A module that takes a block's place and does not take its residual streams by name is one opaque unit.

    Args:
        stream: the units whose outputs are the block's residual streams.
        skips: other units whose outputs the block takes.
        ends: the last blocks of the chains before this one.
    """
    taken = (*stream, *skips)
    if not set(chain.streams) <= inspect.signature(block.forward).parameters.keys():
        contexts = dict.fromkeys(end for part in chain.parts for end in _ends(part, ends))
        return builder.unit(name, "block", (*taken, *contexts), opaque=type(block).__name__)
    own = {attribute for attribute, _ in block.named_children()}
    inside: dict[str, int] = {}
    for part in chain.parts:
        # Among its own modules: a wrapper may hand attributes on to what it wraps.
        if part.attribute in own:
            reads = (*taken, *(inside[other] for other in part.reads if other in inside), *_ends(part, ends))
            inside[part.attribute] = builder.unit(f"{name}.{part.attribute}", part.kind, reads)
    reads = (*taken, *(inside[other] for other in chain.reads if other in inside))
    return builder.unit(name, "block", reads, inputs=stream, streams=chain.streams)


def _ends(part: Part, ends: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    return tuple(unit for name in part.context for unit in ends[name])


# The transformer blocks inside a U-Net's attention.
UNET_CHAIN = Chain("transformer_blocks", _SEQUENTIAL, _HIDDEN, _SEQUENTIAL_READS)


def _build(denoiser: nn.Module, architecture: Architecture) -> Structure:
    builder = StructureBuilder()
    ends: dict[str, tuple[int, ...]] = {}
    for chain in architecture.chains:
        blocks: Any = getattr(denoiser, chain.name)
        stream = tuple(unit for name in chain.follows for unit in ends[name])
        outputs: list[int] = []
        for position, block in enumerate(blocks):
            skips = _skips(position, block, chain, blocks, outputs)
            outputs.append(add_block(builder, f"{chain.name}.{position}", block, chain, stream, skips, ends))
            stream = (outputs[-1],)
        # An empty chain hands on what it was given.
        ends[chain.name] = stream
    return builder.build(architecture.size_multiple or _patch_size(denoiser))


def _skips(position: int, block: nn.Module, chain: Chain, blocks: Any, outputs: list[int]) -> tuple[int, ...]:
    """The blocks before the last one whose outputs this one takes."""
    if chain.skip is not None:
        skipped = chain.skip(position, len(blocks))
        return () if skipped is None else (outputs[skipped],)
    # Which blocks feed a long skip is not to be seen from outside: all may.
    unknown = any("skip" in attribute for attribute, _ in block.named_children())
    return tuple(outputs[:-1]) if unknown else ()


def _patch_size(denoiser: nn.Module) -> int:
    """What the config says, else the stride of the convolution that makes patches."""
    config: Any = getattr(denoiser, "config", None)
    for name in ("patch_size", "all_patch_size"):
        size = getattr(config, name, None)
        if size is not None:
            return int(size if isinstance(size, int) else size[-1])
    convolutions = (child for child in denoiser.children() if isinstance(child, (nn.Conv2d, nn.Conv3d)))
    return max((int(convolution.stride[-1]) for convolution in convolutions), default=1)


def _guess_parts(block: nn.Module) -> tuple[Part, ...]:
    parts: list[Part] = []
    for attribute, child in block.named_children():
        kind = _guess_kind(attribute, child)
        if kind is not None:
            parts.append(Part(attribute, kind, tuple(part.attribute for part in parts)))
    return tuple(parts)


def _guess_kind(attribute: str, layer: nn.Module) -> str | None:
    words = f"{attribute} {type(layer).__name__}".lower()
    if "norm" in words or isinstance(layer, nn.ModuleList):
        return None
    if "attn" in words or "attention" in words:
        return CROSS if "cross" in words or attribute == "attn2" else SELF
    if attribute in ("ff", "ffn") or any(word in words for word in ("feedforward", "feed_forward", "mlp")):
        return FEED_FORWARD
    return None


def _guess_streams(block: nn.Module) -> tuple[str, ...]:
    """Which arguments a block's outputs replace, as its last ``return`` says; none where that is not to be seen."""
    parameters = list(inspect.signature(block.forward).parameters)
    try:
        source = textwrap.dedent(inspect.getsource(type(block).forward))
    except OSError:
        return ()
    returned = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Return)]
    if not returned or not parameters:
        return ()
    last = returned[-1]
    if not isinstance(last, ast.Tuple):
        return _HIDDEN if "hidden_states" in parameters else (parameters[0],)
    names = tuple(element.id for element in last.elts if isinstance(element, ast.Name))
    return names if len(names) == len(last.elts) and set(names) <= set(parameters) else ()
