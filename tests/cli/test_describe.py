"""``postdiff describe``: figures that add up, trees that can be read, one sentence for what cannot be described."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusers import IPNDMScheduler
from rich.console import Console

from autotune.cli import run
from autotune.cli.describe import Description, describe
from autotune.cli.models import ModelSource
from autotune.cli.unit_tree import Node, UnitTree, nest
from autotune.cost import Pricer
from autotune.models.shipped import demo_pipeline
from autotune.pipelines.families import LatentSize, family_of
from studies.full_size import FLUX, PIXART, SDXL, FullSize
from tests.support.builders import FAMILIES
from tests.support.tiny import tiny_sd


def full_size(model: FullSize, **layers: int) -> Description:
    """Of the published width, with fewer layers if so wanted."""
    with torch.device("meta"):
        denoiser = model.denoiser(**{**model.config, **layers}).to(torch.bfloat16)
    return describe(model.pipeline(denoiser))


def lines(node: Node) -> int:
    return 1 + sum(map(lines, node.parts))


def leaves(node: Node, copies: int = 1) -> int:
    """FLOPs of everything that has no parts."""
    copies *= node.alike
    return sum(leaves(part, copies) for part in node.parts) if node.parts else node.flops * copies


# Of the same size in latents as the picture whose denoiser call is made below.
SIZES = {"sd": (32, 32), "ddpm": (16, 16), "pixart-alpha": (32, 32), "flux-dev": (32, 32), "sd3": (32, 32)}


@pytest.mark.parametrize("name", SIZES)
def test_figures_add_up_and_are_those_of_a_call(name: str) -> None:
    pipe: Any = FAMILIES[name].make()
    height, width = SIZES[name]
    found = describe(pipe, height, width)

    table = Pricer(pipe, height, width).table(*found.latents)
    assert (found.flops, found.macs_conv_linear) == (table.total.flops, table.total.macs_conv_linear)
    assert sum(unit.own_flops for unit in found.units) + found.elsewhere_flops == found.flops
    for unit in found.units:
        inside = [part.flops for part in found.units if part.part_of == unit.name]
        assert unit.own_flops + sum(inside) == unit.flops
        assert unit.share == unit.flops / found.flops
    for tree in (found.tree, found.tree.folded()):
        assert tree.flops == found.flops
        assert leaves(tree) == found.flops

    family = family_of(pipe)
    denoiser = family.denoiser(pipe)
    sizes: dict[str, int] = {}
    for unit in found.units:
        module = denoiser.get_submodule(unit.name)
        module.register_forward_hook(lambda _, args, output, key=unit.name: sizes.update({key: _bytes(output)}))
    given = family.inputs(denoiser.config, LatentSize(*found.latents), found.text_tokens)  # type: ignore[attr-defined]
    with torch.inference_mode():
        denoiser(**given)
    assert sizes == {unit.name: unit.kept_bytes for unit in found.units}


def _bytes(output: Any) -> int:
    tensors = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else (output,)
    # A last block may have nothing to say of the text.
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors if tensor is not None)


def test_sdxl_can_be_read() -> None:
    found = full_size(SDXL)
    # The T-GATE paper prints 149.438 TMACs for 25 guided steps.
    assert found.macs_conv_linear * 50 == pytest.approx(149.438e12, rel=1e-4)
    assert found.parameters == SDXL.parameters
    assert (found.native_size, found.latents, found.text_tokens) == ((1024, 1024), (128, 128), 77)
    assert sum(unit.kind == "block" for unit in found.units) == 70
    assert lines(found.tree) > 300
    folded = found.tree.folded()
    assert lines(folded) < 60
    text = shown(folded)
    assert text.count("transformer_blocks.0-9") == 3
    assert text.count("transformer_blocks.0-1 ") == 2


def test_pixart_costs_what_its_layers_multiply() -> None:
    found = full_size(PIXART, num_layers=4)
    tokens, width, text = 64 * 64, 1152, 300
    unit = {unit.name: unit for unit in found.units}
    # Query, key, value and output; scores and their product with the values.
    attention = 2 * tokens * 4 * width**2 + 2 * 2 * tokens**2 * width
    cross = 2 * (2 * tokens + 2 * text) * width**2 + 2 * 2 * tokens * text * width
    feed_forward = 2 * 2 * tokens * width * 4 * width
    for block in (0, 3):
        name = f"transformer_blocks.{block}"
        figures = [unit[f"{name}.{part}"].flops for part in ("attn1", "attn2", "ff")]
        assert figures == [attention, cross, feed_forward]
        assert unit[name].flops == sum(figures)
        assert unit[name].kept_bytes == tokens * width * 2
    assert "transformer_blocks.0-3 " in shown(found.tree.folded())


def test_flux_can_be_read() -> None:
    found = full_size(FLUX, num_layers=3, num_single_layers=5)
    assert (found.guidance, found.latents, found.text_tokens) == ("separate", (128, 128), 512)
    folded = found.tree.folded()
    assert lines(folded) < 12
    text = shown(folded)
    assert " transformer_blocks.0-2 " in text
    assert " single_transformer_blocks.0-4 " in text


def shown(tree: Node) -> str:
    output = io.StringIO()
    Console(file=output, width=100).print(UnitTree(tree))
    return output.getvalue()


def leaf(name: str, flops: int = 1) -> Node:
    return Node(name, "resnet", flops, 4)


def test_only_alike_neighbours_are_folded() -> None:
    entries = [
        leaf("a.0.x"),
        leaf("a.0", 2),
        leaf("b.0"),
        leaf("a.1.x"),
        leaf("a.1", 2),
        leaf("a.2.x", 2),
        leaf("a.2", 2),
        leaf("a.3"),
        leaf("a.5"),
        leaf("b.1"),
        leaf("end"),
    ]
    tree = nest("net", 20, entries).folded()
    assert [(part.name, part.alike) for part in tree.parts] == [
        ("a.0-1", 2),
        ("b.0-1", 2),
        ("a.2", 1),
        ("a.3", 1),
        ("a.5", 1),
        ("end", 1),
    ]
    assert [part.name for part in tree.parts[0].parts] == ["x"]


def test_depth_and_what_is_in_no_part() -> None:
    tree = nest("net", 10, [leaf("a.0.x", 1), leaf("a.0", 3), leaf("b", 5)]).with_rest("elsewhere")
    assert [(part.name, part.flops) for part in tree.parts] == [("a.0", 3), ("b", 5), ("elsewhere", 2)]
    assert [(part.name, part.flops) for part in tree.parts[0].parts] == [("x", 1), ("elsewhere in it", 2)]
    assert lines(tree) == 6
    assert lines(tree.cut(1)) == 4
    assert lines(tree.cut(0)) == 1


def test_the_shipped_model_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe"]) == 0
    text = capsys.readouterr().out
    found = describe(demo_pipeline())
    for words in ("StableDiffusionPipeline", f"{found.parameters:,} parameters", "DDIMScheduler", "64 x 64 pixels"):
        assert words in text
    assert "latents 16 x 16" in text
    _, table = text.split("─ \n")
    assert len(table.strip().splitlines()) == lines(found.tree.folded()) < lines(found.tree)
    assert max(map(len, text.splitlines())) <= 100

    assert run(["describe", "emoji-unet", "--all", "--depth", "1", "--height", "128", "--dtype", "bfloat16"]) == 0
    text = capsys.readouterr().out
    assert "latents 32 x 16" in text
    assert "bfloat16" in text
    assert "down_blocks.2" in text
    assert "resnets" not in text


def test_json_lists_every_unit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["describe", "--json", "--depth", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    structure = Pricer(demo_pipeline()).structure
    assert [unit["name"] for unit in document["units"]] == [unit.name for unit in structure.units]
    assert [block["name"] for block in document["blocks"]] == [block.name for block in structure.blocks]
    assert document["model"] == "emoji-unet"
    assert sum(unit["own_flops"] for unit in document["units"]) + document["elsewhere_flops"] == document["flops"]


def test_a_guessed_denoiser_is_said_to_be_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = FAMILIES["generic"].make()
    pipe.tokenizer.model_max_length = 8
    monkeypatch.setattr(ModelSource, "load", lambda *_: pipe)
    assert run(["describe"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "GenericTransformer is of no known class: its units were read off its lists of blocks. Found: " in text
    assert "blocks.0-3 (" in text
    assert describe(tiny_sd()).known


def test_a_scheduler_that_policies_do_not_support_is_said_to_be_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tiny_sd(scheduler=IPNDMScheduler())
    monkeypatch.setattr(ModelSource, "load", lambda *_: pipe)
    assert run(["describe"]) == 0
    assert "IPNDMScheduler (not supported: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["emoji-unit"], "did you mean 'emoji-unet'"),
        (["."], "model_index.json"),
        (["--height", "63"], "multiples of 8"),
        (["--width", "-8"], "multiples of 8"),
        (["--depth", "0"], "--depth"),
        (["--dtype", "int8"], "--dtype"),
        (["emoji-unet", "another"], "another"),
    ],
)
def test_bad_input_is_one_sentence(capsys: pytest.CaptureFixture[str], arguments: list[str], named: str) -> None:
    assert run(["describe", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (sentence,) = captured.err.splitlines()
    assert sentence.startswith("postdiff: ")
    assert named in sentence


def test_a_pipeline_without_a_denoiser_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tiny_sd()
    pipe.unet = None
    monkeypatch.setattr(ModelSource, "load", lambda *_: pipe)
    assert run(["describe"]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "has no unet" in sentence


@pytest.mark.parametrize("command", ["describe", "models"])
def test_help_and_bad_input_do_not_load_torch(environment: dict[str, str], command: str) -> None:
    script = (
        "import sys; from autotune.cli import run;"
        f"run([{command!r}, '--help']); run([{command!r}, '--nothing']); run(['describe', 'emoji-unit']);"
        "sys.exit('torch' in sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
