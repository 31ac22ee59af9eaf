"""The counter that remembers operations counts what torch's own counter does, part by part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from autotune.cost.counter import WorkCounter
from autotune.cost.flops import count_work, weightless
from autotune.pipelines.families import LatentSize, family_of
from autotune.pipelines.units import find_units
from autotune.runtime.models import latents_of
from tests.support.builders import FAMILIES


@pytest.mark.parametrize("name", ["sd", "flux", "wan"])
def test_units_have_the_flops_that_torch_counts(name: str) -> None:
    pipe = FAMILIES[name].make()
    family, latents, tokens = family_of(pipe), latents_of(pipe, *FAMILIES[name].size), FAMILIES[name].text_tokens
    denoiser = family.denoiser(pipe)
    size = LatentSize(latents.height, latents.width, latents.frames)

    def inputs(config: Any) -> Any:
        return family.inputs(config, size, tokens)

    structure, skeleton = find_units(denoiser), weightless(denoiser)
    with torch.device("meta"):
        arguments = inputs(denoiser.config)
    with FlopCounterMode(display=False) as torchs, torch.no_grad():
        skeleton(**arguments)
    table, counts = count_work(denoiser, structure, inputs), torchs.get_flop_counts()
    with_parts = [0] * len(table.units)
    for index, work in enumerate(table.units):
        within: int | None = index
        while within is not None:
            with_parts[within] += work.flops
            within = structure.parents[within]
    prefix = type(skeleton).__name__
    assert with_parts == [sum(counts.get(f"{prefix}.{unit.name}", {}).values()) for unit in structure.units]
    assert table.total.flops == torchs.get_total_flops()


class Seen(TorchDispatchMode):
    """Which operations are really run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


def layouts(make: Callable[[], Any]) -> list[tuple[Any, ...]]:
    output = make()
    made = output if isinstance(output, tuple) else (output,)
    return [(each.shape, each.stride(), each.dtype, each.device.type) for each in made]


def meta(*shape: int, **options: Any) -> Tensor:
    return torch.empty(*shape, device="meta", **options)


def test_an_operation_is_run_once_for_its_shapes_and_counted_every_time() -> None:
    layer = nn.Linear(4, 8, device="meta")
    with Seen() as seen, WorkCounter() as counter, torch.no_grad():
        for _ in range(3):
            layer(meta(2, 4))
        layer(meta(5, 4))
    assert seen.names.count("aten.addmm") == 2
    assert counter.total.flops == 2 * counter.total.macs_conv_linear == 2 * 4 * 8 * (3 * 2 + 5)


OPERATIONS: dict[str, Callable[[], Any]] = {
    "several outputs": lambda: torch.ops.aten.native_layer_norm(meta(2, 3, 4), (4,), None, None, 1e-5),
    "a number": lambda: meta(3, dtype=torch.int64) + 1,
    "a number of another type": lambda: meta(3, dtype=torch.int64) + 1.0,
    "a truth": lambda: meta(3, dtype=torch.bool) + True,
    "strides": lambda: meta(4, 6).t() * 2,
    "a view": lambda: meta(4, 6).transpose(0, 1),
    "a dtype": lambda: meta(4).to(torch.float16),
    "a list": lambda: torch.cat([meta(2, 3), meta(5, 3)]),
    "in place": lambda: meta(4).add_(1),
    "no meta": lambda: torch.ones(3) + 1,
}


def test_what_is_remembered_is_what_the_operation_makes() -> None:
    with WorkCounter():
        first = {name: layouts(make) for name, make in OPERATIONS.items()}
        again = {name: layouts(make) for name, make in OPERATIONS.items()}
    assert first == again == {name: layouts(make) for name, make in OPERATIONS.items()}


def test_values_are_computed_anew() -> None:
    with WorkCounter():
        assert [(torch.tensor([start]) + 1).item() for start in (1, 2)] == [2, 3]


def test_a_view_shares_its_values() -> None:
    with WorkCounter():
        for _ in range(2):
            tensor = meta(4, 6)
            assert tensor.t()._base is tensor


def test_work_belongs_to_the_part_that_was_entered_last() -> None:
    with WorkCounter() as counter, torch.no_grad():
        meta(2, 3) @ meta(3, 5)
        counter.enter("outer")
        meta(2, 3) @ meta(3, 5)
        counter.enter("inner")
        meta(2, 3) @ meta(3, 7)
        counter.leave()
        meta(2, 3) @ meta(3, 5)
        counter.leave()
    assert [counter.of(part).flops for part in (None, "outer", "inner")] == [60, 120, 84]
    assert counter.total.flops == 264
