"""The tiny pipelines are deterministic, sensitive to everything they should be, and as they are declared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler
from torch import nn

from tests.conformance.test_contract import VARIANTS
from tests.support.builders import FAMILIES, PROMPTS, TinyFamily

pytestmark = pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, id=name, marks=[pytest.mark.exhaustive] if name in VARIANTS else [])
        for name, family in FAMILIES.items()
    ],
)


@cache
def _pipe(family: str) -> Any:
    return FAMILIES[family].make()


def _run(family: TinyFamily, **changes: Any) -> torch.Tensor:
    return family.run(_pipe(family.name), **family.arguments(**changes))


def _blocks(denoiser: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in denoiser.named_children():
        if isinstance(child, nn.ModuleList):
            yield from ((f"{name}.{index}", block) for index, block in enumerate(child))
        elif name == "mid_block":
            yield name, child


@contextmanager
def _halved(module: nn.Module) -> Iterator[None]:
    saved = [parameter.detach().clone() for parameter in module.parameters()]
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(0.5 if parameter.ndim > 1 else 1.0)
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(module.parameters(), saved, strict=True):
                parameter.copy_(value)


@contextmanager
def _recorded(family: TinyFamily) -> Iterator[list[tuple[torch.Tensor, list[torch.Tensor]]]]:
    """For every call of the denoiser: its sample and the rows of the text or classes that it is given."""
    denoiser = getattr(_pipe(family.name), family.denoiser)
    calls = []

    def note(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        sample = args[0] if args else kwargs["hidden_states"]
        # Z-Image is given lists, in order; HunyuanDiT and Hunyuan-Image have two texts.
        text = kwargs.get("encoder_hidden_states", kwargs.get("class_labels", args[2] if len(args) > 2 else []))
        second = kwargs.get("encoder_hidden_states_t5", kwargs.get("encoder_hidden_states_2"))
        rows = list(text) if second is None else [torch.cat(pair) for pair in zip(text, second, strict=True)]
        sample = torch.stack(sample).squeeze(2) if isinstance(sample, list) else sample
        calls.append((sample.clone(), rows))

    hook = denoiser.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield calls
    finally:
        hook.remove()


def test_it_is_of_the_declared_class(family: TinyFamily) -> None:
    assert type(_pipe(family.name)).__name__ == family.pipeline


def test_repeats_bit_for_bit_and_leaves_the_global_generator_alone(family: TinyFamily) -> None:
    before = torch.get_rng_state()
    rebuilt = family.make()
    assert torch.equal(torch.get_rng_state(), before)
    first = _run(family)
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert torch.equal(first, _run(family))
    assert torch.equal(first, family.run(rebuilt, **family.arguments()))


def test_two_pipelines_share_nothing(family: TinyFamily) -> None:
    """Two that are loaded share nothing either, and tests run two in threads."""
    pipe, other = family.make(), family.make()
    shared = [name for name, part in pipe.components.items() if part is not None and part is other.components[name]]
    assert not shared


def test_depends_on_all_that_it_is_told(family: TinyFamily) -> None:
    first = _run(family)
    changes: dict[str, dict[str, Any]] = {"seed": {"seed": 1}, "steps": {"steps": 5}}
    if family.guided:
        changes["guidance"] = {"guidance": False}
    if family.text == "prompt":
        changes["prompt"] = {"prompt": [PROMPTS[1]]}
    if family.text == "class":
        changes["class"] = {"class_labels": [18]}
    for name, change in changes.items():
        assert (_run(family, **change) - first).std() > 1e-3 * first.std(), name


@pytest.mark.exhaustive
def test_depends_on_every_block(family: TinyFamily) -> None:
    first = _run(family, guidance=False)
    blocks = dict(_blocks(getattr(_pipe(family.name), family.denoiser)))
    assert len(blocks) >= 4
    for name, block in blocks.items():
        with _halved(block):
            changed = _run(family, guidance=False)
        assert (changed - first).std() > 1e-3 * first.std(), name
    assert torch.equal(first, _run(family, guidance=False))


def test_takes_a_batch_and_another_size(family: TinyFamily) -> None:
    two = _run(family, batch=2)
    assert len(two) == 2
    assert torch.isfinite(two).all()
    assert not torch.equal(two[0], two[1])
    if family.other_size is None:
        with pytest.raises(ValueError, match="one size"):
            family.arguments(height=8)
        return
    other = _run(family, height=family.other_size[0], width=family.other_size[1])
    assert torch.isfinite(other).all()
    assert other.numel() == 2 * _run(family).numel()


def test_calls_the_denoiser_as_declared(family: TinyFamily) -> None:
    with _recorded(family) as calls:
        _run(family)
    branches = 2 if family.guidance == "separate" else 1
    rows = (family.branches if family.guidance == "batched" else 1) + family.perturbed
    assert len(calls) == branches * family.executed_steps()
    packed = family.name.startswith(("flux", "chroma", "qwen-image"))
    for sample, text in calls:
        assert len(sample) == rows
        # Patches of 2 x 2 in a sequence, or 16 x 16 latents.
        sides = sample.shape[-3:-1] if family.channels_last else sample.shape[-2:]
        assert sample.shape[1:] == family.tokens if packed else sides == (16, 16)
        if family.text == "prompt":
            assert {len(tokens) for tokens in text} == {family.text_tokens}
    if family.guided:
        with _recorded(family) as unguided:
            _run(family, guidance=False)
        assert {len(sample) for sample, _ in unguided} == {1 + family.perturbed}
        assert len(unguided) == family.executed_steps()


def test_the_conditional_branch_is_where_declared(family: TinyFamily) -> None:
    if not family.guided:
        pytest.skip("has no guidance")
    change: dict[str, Any] = {"prompt": [PROMPTS[1]]} if family.text == "prompt" else {"class_labels": [18]}
    with _recorded(family) as calls:
        _run(family)
    with _recorded(family) as others:
        _run(family, **change)
    # The branches of the first step, in order: rows of one call or one row each of two calls.
    count = 2 if family.guidance == "separate" else 1
    first, second = ([row for _, text in made[:count] for row in text] for made in (calls, others))
    same = [torch.equal(a, b) for a, b in zip(first, second, strict=True)]
    others_same = [True] * (family.branches - 1)
    by_branch = [False, *others_same] if family.conditional_first else [*others_same, False]
    assert same == by_branch + [False] * family.perturbed


@pytest.mark.exhaustive
def test_takes_another_scheduler(family: TinyFamily) -> None:
    scheduler = DDIMScheduler() if family.scheduler == "diffusion" else FlowMatchEulerDiscreteScheduler()
    assert family.make(scheduler).scheduler is scheduler
    assert family.make().scheduler is not scheduler
