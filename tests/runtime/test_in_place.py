"""What is kept and what is put out in a unit's place belongs to nobody else, whatever the denoiser writes in place.

Of :mod:`autotune.runtime.hooks`; FreeU writes into the features that go up (diffusers' ``apply_freeu``).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autotune.policy import CacheRule, Policy
from autotune.runtime import applied
from tests.conformance.test_contract import VARIANTS
from tests.support.builders import FAMILIES
from tests.support.by_hand import by_hand
from tests.support.ecosystem import make
from tests.support.techniques import STEPS, structure_of

COMPUTE = (0, 2)
UNITS = (
    "up_blocks.1.attentions.0",
    "mid_block",
    "up_blocks.0",
    "up_blocks.1",
    "down_blocks.1.resnets.0",
    "up_blocks.0.resnets.1",
)


def reuse(*units: str, mode: Any = "reuse", **fields: Any) -> Policy:
    return Policy(steps=STEPS, cache=(CacheRule(units=units, mode=mode, compute_steps=COMPUTE, **fields),))


def call(name: str, pipe: Any, **options: Any) -> Tensor:
    return FAMILIES[name].run(pipe, **FAMILIES[name].arguments(steps=STEPS, **options))


def want(name: str, pipe: Any, policy: Policy) -> Tensor:
    family = FAMILIES[name]
    denoiser = getattr(pipe, family.denoiser)
    with by_hand(
        pipe,
        denoiser,
        policy,
        conditional_first=family.conditional_first,
        separate=family.guidance == "separate",
    ):
        return call(name, pipe)


@pytest.mark.parametrize("units", [*((unit,) for unit in UNITS), ("mid_block", "up_blocks.1.attentions.0")], ids=str)
@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_reuse_with_freeu_is_reuse_done_by_hand(name: str, units: tuple[str, ...]) -> None:
    pipe = make(name)
    if name == "sdxl":
        units = tuple(unit.replace("up_blocks.1.attentions.0", "up_blocks.1.attentions.1") for unit in units)
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    expected = want(name, pipe, reuse(*units))
    with applied(pipe, reuse(*units)):
        for _ in range(2):
            torch.testing.assert_close(call(name, pipe), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("first", ["FreeU", "policy"])
def test_freeu_before_the_policy_or_under_it_is_the_same(first: str) -> None:
    pipe, policy = make("sd"), reuse("mid_block", "up_blocks.1.attentions.0")
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
    plain, expected = call("sd", pipe), want("sd", pipe, policy)
    if first == "policy":
        pipe.disable_freeu()
    with applied(pipe, policy):
        pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.5, b2=1.6)
        torch.testing.assert_close(call("sd", pipe), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(call("sd", pipe), plain)
    pipe.disable_freeu()
    assert torch.equal(call("sd", pipe), call("sd", make("sd")))


@pytest.mark.parametrize("block", [0, 1, 2])
@pytest.mark.parametrize("name", ["sd-adapter", "sdxl-adapter"])
def test_an_adapter_adds_to_blocks_that_are_stepped_over(name: str, block: int) -> None:
    """Inside the block, or to its last output in place, which goes to a skip too."""
    pipe = FAMILIES[name].make()
    structure = structure_of(FAMILIES[name], pipe)
    (outputs,) = (found.outputs for found in structure.blocks if found.name == f"down_blocks.{block}")
    policy = reuse(*(structure.units[unit].name for unit in outputs or ()))
    expected = want(name, pipe, policy)
    with applied(pipe, policy):
        torch.testing.assert_close(call(name, pipe), expected, atol=1e-5, rtol=1e-5)


# Those that share their denoiser with another put out nothing else.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.exhaustive] if name in VARIANTS else []) for name in FAMILIES]
)
@pytest.mark.parametrize("mode", ["reuse", "forecast", "residual"])
def test_kept_features_outlive_writing_into_what_units_put_out(name: str, mode: Any) -> None:
    """Every family: the same with a unit's output written into as with a copy of it written into."""
    pipe = FAMILIES[name].make()
    family, structure = FAMILIES[name], structure_of(FAMILIES[name], pipe)
    denoiser = getattr(pipe, family.denoiser)
    blocks = [block.name for block in structure.blocks] or [u.name for u in structure.units if u.kind == "block"]
    if mode == "residual":
        blocks = [unit.name for unit in structure.units if unit.streams]
    unit = blocks[len(blocks) // 2]
    policy = reuse(unit, mode=mode, **({"order": 1} if mode == "forecast" else {}))
    module = denoiser.get_submodule(unit)

    def copied(module: nn.Module, args: Any, output: Any) -> Any:
        return (
            output.clone()
            if isinstance(output, Tensor)
            else tuple(part.clone() if isinstance(part, Tensor) else part for part in output)
        )

    def written(module: nn.Module, args: Any, output: Any) -> Any:
        for part in (output,) if isinstance(output, Tensor) else output:
            if isinstance(part, Tensor):
                part.mul_(0.9)
        return output

    results = []
    for hooks in ((copied, written), (written,)):
        handles = [module.register_forward_hook(hook) for hook in hooks]
        with applied(pipe, policy):
            arguments = family.arguments(steps=STEPS)
            results.append(family.run(pipe, **arguments))
        for handle in handles:
            handle.remove()
    torch.testing.assert_close(results[1], results[0], atol=0, rtol=0)
