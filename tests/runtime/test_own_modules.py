"""Modules that are not diffusers' own: wrapped, quantised, and patched after the policy was applied.

Of :mod:`autotune.pipelines.units` and :mod:`autotune.runtime.hooks`.
"""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from autotune.cli.describe import describe, print_description
from autotune.core.errors import InputError, PolicyError
from autotune.cost import Pricer
from autotune.pipelines.units import find_units
from autotune.policy import CacheRule, Guidance, Policy
from autotune.runtime import applied, apply_policy, describe_model, remove_policy
from tests.support.builders import FAMILIES
from tests.support.by_hand import by_hand, precise
from tests.support.ecosystem import make
from tests.support.techniques import STEPS


class Wrapped(nn.Module):
    """A resnet of a user's: another name, no ``in_channels``, other argument names."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor, temb: Tensor | None = None) -> Tensor:
        out: Tensor = self.inner(x, temb)
        return out * 0.9


class Anything(nn.Module):
    """A wrapper that hands on what it is given, and its attributes too."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner(*args, **kwargs)


def wrap_resnets(unet: Any) -> None:
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        block.resnets = nn.ModuleList(Wrapped(resnet) for resnet in block.resnets)


def wrap_attentions(unet: Any) -> None:
    for block in (*unet.down_blocks, *unet.up_blocks):
        if getattr(block, "attentions", None):
            block.attentions = nn.ModuleList(Anything(attention) for attention in block.attentions)


def wrap_transformer_blocks(unet: Any) -> None:
    for module in list(unet.modules()):
        if hasattr(module, "transformer_blocks"):
            module.transformer_blocks = nn.ModuleList(Anything(block) for block in module.transformer_blocks)


WRAPS: dict[str, tuple[Callable[[Any], None], str, str]] = {
    "resnets": (wrap_resnets, "down_blocks.0.resnets.1", "Wrapped"),
    "attentions": (wrap_attentions, "up_blocks.1.attentions.0", "Anything"),
    "transformer blocks": (wrap_transformer_blocks, "up_blocks.1.attentions.0.transformer_blocks.0", "Anything"),
}
each_wrap = pytest.mark.parametrize("kind", WRAPS)


def reuse(*units: str, mode: Any = "reuse") -> Policy:
    rule = CacheRule(units=units, mode=mode, compute_steps=(0, 2))
    return Policy(steps=STEPS, guidance=Guidance(stop_step=3), cache=(rule,))


def check(name: str, pipe: Any, policy: Policy) -> None:
    """Under the policy and by hand the same."""
    family = FAMILIES[name]

    def call() -> Tensor:
        return family.run(pipe, **family.arguments(steps=STEPS))

    plain = call()
    denoiser = getattr(pipe, family.denoiser)
    with by_hand(pipe, denoiser, policy, conditional_first=family.conditional_first, separate=False):
        expected = call()
    with applied(pipe, policy):
        torch.testing.assert_close(call(), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(call(), plain) and not torch.allclose(plain, expected, atol=1e-4)


@each_wrap
def test_a_module_of_ones_own_is_one_opaque_unit(kind: str) -> None:
    wrap, unit, name = WRAPS[kind]
    pipe = precise(make("sd"))
    wrap(pipe.unet)
    structure = find_units(pipe.unet)
    found = structure.units[structure.index_of[unit]]
    assert found.opaque == name and not found.streams
    for units in ((unit,), ("up_blocks.1",), ("mid_block", unit)):
        check("sd", pipe, reuse(*units))
    with pytest.raises(PolicyError, match=f"'{unit}' has no residual"):
        apply_policy(pipe, reuse(unit, mode="residual"))


@each_wrap
def test_describe_names_it_and_prices_what_it_replaces(kind: str) -> None:
    wrap, unit, name = WRAPS[kind]
    pipe = make("sd")
    before = describe(pipe)
    wrap(pipe.unet)
    after = describe(pipe)
    opaque = {cost.name: cost.opaque for cost in after.units if cost.opaque}
    assert opaque[unit] == name
    costs = {cost.name: cost.flops for cost in before.units}
    assert all(cost.flops == costs[cost.name] for cost in after.units)
    assert after.flops == before.flops and not any(cost.opaque for cost in before.units)


def test_the_command_says_so() -> None:
    pipe, printed = make("sd"), StringIO()
    wrap_resnets(pipe.unet)
    source: Any = SimpleNamespace(name="mine", load=lambda *_: pipe)
    how: Any = {"height": None, "width": None, "dtype": "float32", "depth": 1, "unfold": False, "as_json": False}
    print_description(source, **how, file=printed)
    assert "Not known here: down_blocks.0.resnets.0 (Wrapped)," in " ".join(printed.getvalue().split())


def test_a_block_of_ones_own_in_a_transformer() -> None:
    pipe = make("pixart-alpha").to(torch.float64)
    blocks = pipe.transformer.transformer_blocks
    pipe.transformer.transformer_blocks = nn.ModuleList([blocks[0], Anything(blocks[1]), *blocks[2:]])
    assert [unit.name for unit in find_units(pipe.transformer).units if unit.opaque] == ["transformer_blocks.1"]
    for unit in ("transformer_blocks.1", "transformer_blocks.2"):
        check("pixart-alpha", pipe, reuse(unit))


# Patched after the policy


def _halved_tokens(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    """As ToMe does: the block works on fewer tokens, each of which stands for two."""
    tokens = hidden_states.shape[1]
    merged = hidden_states.reshape(len(hidden_states), tokens // 2, 2, -1).mean(2)
    output = BasicTransformerBlock.forward(self, merged, *args, **kwargs)
    return output.repeat_interleave(2, dim=1)


class Merging(BasicTransformerBlock):  # type: ignore[misc]
    forward = _halved_tokens


class Renamed(BasicTransformerBlock):  # type: ignore[misc]
    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().forward(x, *args, **kwargs)


def patch(pipe: Any, kind: type) -> None:
    for module in pipe.unet.modules():
        if isinstance(module, BasicTransformerBlock):
            module.__class__ = kind


@pytest.mark.parametrize("unit", ["up_blocks.1.attentions.0.transformer_blocks.0", "up_blocks.1"])
@pytest.mark.parametrize("mode", ["reuse", "residual"])
def test_a_patch_after_the_policy_is_as_one_before(unit: str, mode: str) -> None:
    if mode == "residual" and "transformer" not in unit:
        pytest.skip("a U-Net's block has no residual")
    family = FAMILIES["sd"]

    def call(pipe: Any) -> Tensor:
        return family.run(pipe, **family.arguments(steps=STEPS))

    before, after = make("sd"), make("sd")
    unpatched = call(after)
    patch(before, Merging)
    plain = call(before)
    with applied(before, reuse(unit, mode=mode)):
        expected = call(before)
    apply_policy(after, reuse(unit, mode=mode))
    call(after)
    patch(after, Merging)
    assert torch.equal(call(after), expected) and not torch.equal(expected, plain)
    remove_policy(after)
    assert torch.equal(call(after), plain)
    patch(after, BasicTransformerBlock)
    assert torch.equal(call(after), unpatched)


def test_a_patch_that_takes_the_residual_stream_by_another_name_is_refused() -> None:
    pipe = make("sd")
    family, calls = FAMILIES["sd"], []
    with applied(pipe, reuse("up_blocks.1.attentions.0.transformer_blocks.0", mode="residual")):
        patch(pipe, Renamed)
        pipe.unet.conv_in.register_forward_hook(lambda *_: calls.append(1))
        with pytest.raises(InputError, match=r"is a Renamed now, whose forward takes no 'hidden_states'"):
            family.run(pipe, **family.arguments(steps=STEPS))
    assert not calls


# Quantised


def _torchao(denoiser: nn.Module) -> None:
    quantization = pytest.importorskip("torchao.quantization")
    quantization.quantize_(denoiser, quantization.Int8WeightOnlyConfig())


def _gguf(denoiser: nn.Module) -> None:
    pytest.importorskip("gguf")
    from diffusers.quantizers.gguf.utils import GGUFLinear

    def stored(child: nn.Linear) -> nn.Module:
        linear = GGUFLinear(child.in_features, child.out_features, child.bias is not None, torch.float32)
        linear.load_state_dict(child.state_dict())
        return linear

    _replace(denoiser, stored)


def _eight_bits(denoiser: nn.Module) -> None:
    layers = pytest.importorskip("bitsandbytes").nn

    def quantised(child: nn.Linear) -> nn.Module:
        linear = layers.Linear8bitLt(child.in_features, child.out_features, child.bias is not None, False)
        linear.load_state_dict(child.state_dict())
        return linear

    _replace(denoiser, quantised)


def _four_bits(denoiser: nn.Module) -> None:
    layers = pytest.importorskip("bitsandbytes").nn

    def quantised(child: nn.Linear) -> nn.Module:
        linear = layers.Linear4bit(child.in_features, child.out_features, child.bias is not None, torch.float32)
        linear.load_state_dict(child.state_dict())
        return linear

    _replace(denoiser, quantised)


def _replace(denoiser: nn.Module, quantised: Callable[[nn.Linear], nn.Module]) -> None:
    """All linear layers; some libraries quantise them on their way to the device."""
    for parent in list(denoiser.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, quantised(child).to("cpu").requires_grad_(False))


class Eighths(nn.Module):
    """Linear layers in 8 bits, which needs no library."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        scale = linear.weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("weight", (linear.weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight.to(input) * self.scale.to(input), self.bias)


def _by_hand(denoiser: nn.Module) -> None:
    for parent in list(denoiser.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and name not in ("linear_1", "linear_2", "linear"):
                setattr(parent, name, Eighths(child))


@pytest.mark.parametrize("quantise", [_torchao, _gguf, _eight_bits, _four_bits, _by_hand])
@pytest.mark.parametrize("first", ["policy", "quantised"])
def test_quantised_layers(quantise: Callable[[nn.Module], None], first: str) -> None:
    """Handled in either order, and priced as the layers they replace."""
    pipe, family = make("pixart-alpha"), FAMILIES["pixart-alpha"]
    policy = reuse("transformer_blocks.1", "transformer_blocks.2.ff")
    policy = policy.model_copy(update={"model": describe_model(pipe, STEPS)})
    flops = Pricer(pipe).price(policy).flops

    def call() -> Tensor:
        return family.run(pipe, **family.arguments(steps=STEPS))

    unquantised = call()
    if first == "policy":
        apply_policy(pipe, policy)
    quantise(pipe.transformer)
    if first == "policy":
        got = call()
        remove_policy(pipe)
    else:
        with applied(pipe, policy):
            got = call()
    plain = call()
    with by_hand(pipe, pipe.transformer, policy, conditional_first=False, separate=False):
        expected = call()
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=1e-3)
    assert not torch.equal(plain, unquantised) or quantise is _gguf
    assert Pricer(pipe).price(policy).flops == flops
