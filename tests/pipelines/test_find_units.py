"""Units against the denoisers themselves: what exists, in which order it runs, and who reads whose output."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autotune.core.errors import InputError
from autotune.pipelines.units import find_units
from tests.support.builders import FAMILIES
from tests.support.replay import Call, Replay, completed_order

# One family for every denoiser class.
DENOISERS = [
    "sd",
    "sdxl",
    "ddpm",
    "pixart-alpha",
    "dit",
    "sd3",
    "flux",
    "sana",
    "lumina2",
    "auraflow",
    "hunyuandit",
    "hunyuan-image",
    "qwen-image",
    "z-image",
    "cogview4",
    "kandinsky5",
    "wan",
    "generic",
]


@pytest.mark.parametrize("name", DENOISERS)
def test_units_are_the_modules_that_run_in_the_order_they_end(name: str) -> None:
    call = Call(FAMILIES[name])
    units = find_units(call.denoiser).units
    names = [unit.name for unit in units]
    assert len(set(names)) == len(names)
    assert completed_order(call, set(names)) == names


# SDXL's units are those of Stable Diffusion, only more of them.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] if name == "sdxl" else []) for name in DENOISERS]
)
def test_reads_and_streams_are_what_a_disturbed_output_changes(name: str) -> None:
    call = Call(FAMILIES[name], guidance=False)
    structure = find_units(call.denoiser)
    names = [unit.name for unit in structure.units]
    replay = Replay(call, {unit.name: unit.streams for unit in structure.units})
    for index, target in enumerate(names):
        readers, streams, result = replay.readers_of(target)
        assert readers == {unit.name for unit in structure.units if index in unit.reads}, target
        # Streams that come from no unit have no name to be found under.
        assert streams == {unit.name for unit in structure.units if unit.streams and index in unit.inputs}, target
        assert result == (index == structure.root), target


@pytest.mark.parametrize("name", DENOISERS)
def test_streams_and_outputs_go_together(name: str) -> None:
    call = Call(FAMILIES[name])
    structure = find_units(call.denoiser)
    replay = Replay(call, {unit.name: unit.streams for unit in structure.units})
    for unit in structure.units:
        assert set(unit.inputs) <= set(unit.reads)
        assert unit.streams or not unit.inputs
        if unit.streams:
            output = replay.outputs[unit.name]
            outputs = (output,) if isinstance(output, Tensor) else tuple(output)
            entries = [replay.entries[unit.name][stream] for stream in unit.streams]
            assert [None if out is None else out.shape for out in outputs] == [
                None if out is None else entry.shape for out, entry in zip(outputs, entries, strict=True)
            ]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_size_multiple_is_accepted(name: str) -> None:
    call = Call(FAMILIES[name])
    size = call.family.size_of(call.sample, call.kwargs)
    multiple = find_units(call.denoiser).size_multiple
    assert size.height % multiple == 0 and size.width % multiple == 0
    assert size.height // multiple >= 4, "too few scales to test with"


def test_kinds() -> None:
    def kinds(name: str) -> set[str]:
        return {unit.kind for unit in find_units(Call(FAMILIES[name]).denoiser).units}

    layers = {"block", "self-attention", "feed-forward"}
    assert kinds("dit") == layers
    crossing = ("pixart-alpha", "hunyuandit", "wan", "kandinsky5")
    assert all(kinds(name) == layers | {"cross-attention"} for name in crossing)
    assert kinds("flux") == {"block", "joint-attention", "feed-forward"}
    convolutional = {"convolution", "resnet", "attention", "downsampler", "upsampler"}
    assert kinds("sd") == kinds("pixart-alpha") | convolutional
    assert kinds("ddpm") == convolutional


def test_a_compiled_denoiser_has_the_same_units() -> None:
    unet = Call(FAMILIES["sd"]).denoiser
    compiled, plain = find_units(torch.compile(unet)), find_units(unet)  # type: ignore[arg-type]
    assert (compiled.units, compiled.blocks, compiled.root) == (plain.units, plain.blocks, plain.root)


def test_blocks_hold_their_units() -> None:
    structure = find_units(Call(FAMILIES["sd"]).denoiser)
    for block in structure.blocks:
        inside = [index for index, unit in enumerate(structure.units) if unit.name.startswith(block.name + ".")]
        assert list(block.units) == inside


class _Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Linear(4, 4)


class _TwoStreamBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cross_attn = nn.Linear(4, 4)
        self.mlp = nn.Linear(4, 4)
        self.long_skip = nn.Linear(8, 4)

    def forward(self, hidden_states: Tensor, encoder_hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        return hidden_states, encoder_hidden_states


class _Unlisted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(4, 4, 4, stride=4)
        self.first = nn.ModuleList([_TwoStreamBlock() for _ in range(3)])
        self.second = nn.ModuleList([_TwoStreamBlock() for _ in range(2)])
        self.heads = nn.ModuleList([nn.Linear(4, 4) for _ in range(2)])


def test_an_unlisted_transformer_is_read_off_its_lists_and_reads_rather_too_much() -> None:
    structure = find_units(_Unlisted())
    units = {unit.name: unit for unit in structure.units}
    index = {unit.name: position for position, unit in enumerate(structure.units)}
    assert "heads.0" not in units
    assert structure.size_multiple == 4
    assert units["first.0.cross_attn"].kind == "cross-attention"
    assert units["first.0"].streams == ("hidden_states", "encoder_hidden_states")
    # Its name says that a long skip comes in, but not from where.
    assert index["first.0"] in units["first.2"].reads
    assert units["first.2"].inputs == (index["first.1"],)
    assert units["second.0"].inputs == (index["first.2"],)


@pytest.mark.parametrize(
    "module", [nn.Sequential(nn.Linear(2, 2)), nn.ModuleDict({"blocks": nn.ModuleList([_Mixer()])})]
)
def test_a_denoiser_without_blocks_is_refused(module: nn.Module) -> None:
    with pytest.raises(InputError, match="has no units that can be found"):
        find_units(module)


def test_an_unknown_block_of_a_unet_is_refused() -> None:
    pipe = FAMILIES["sd"].make()
    pipe.unet.down_blocks[0].__class__ = type("OddDownBlock", (type(pipe.unet.down_blocks[0]),), {})
    with pytest.raises(InputError, match="down_blocks.0 is a OddDownBlock"):
        find_units(pipe.unet)
