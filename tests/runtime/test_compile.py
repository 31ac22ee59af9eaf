"""``torch.compile`` with a policy, in either order: how many graphs there are, and that they are the right ones.

Graphs are counted by the backend, which runs them as they are. What holds, and what does not:

- Compiled blocks (``compile_repeated_blocks``) have the plain model's graphs and no more, ``fullgraph=True`` included:
  units that are such blocks are reused outside of compiled code. Rules on layers inside of a block are traced into it,
  one graph per combination of what its layers do.
- A denoiser compiled as a whole has one graph per kind of step: what its units do, which results are kept, how many
  guidance branches. Another size or batch adds a graph with dynamic sizes.
- Dynamo compiles a function at most ``torch._dynamo.config.recompile_limit`` (8) times. Further kinds of steps run
  uncompiled, or with ``fullgraph=True`` raise: raise the limit then, or compile the blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx

from autotune.pipelines.units import find_units
from autotune.plan import Plan, compile_plan
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.runtime import applied, apply_policy, remove_policy
from tests.support.builders import FAMILIES
from tests.support.ecosystem import make, run
from tests.support.tiny import tiny_unet

STEPS = 5
CACHED = ("down_blocks.1.attentions.0", "transformer_blocks.1", "single_transformer_blocks.0")
SIZES = {"sd": (16, 16), "pixart-alpha": (32, 32), "flux-dev": (32, 32)}


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Counting:
    """A backend that counts its graphs and runs them as they are, or through ``through``."""

    def __init__(self, through: Callable[..., Any] | None = None) -> None:
        self.graphs = 0
        self._through = through

    def __call__(self, module: fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.graphs += 1
        return module.forward if self._through is None else self._through(module, inputs)


def overwriting(module: fx.GraphModule, inputs: list[Tensor]) -> Any:
    """A backend whose graphs write their results to the same places every time, as CUDA graphs do."""
    places: dict[Any, Any] = {}

    def run(*args: Any) -> Any:
        results = module.forward(*args)
        held = places.setdefault(tuple(result.shape for result in results), tuple(map(torch.empty_like, results)))
        for place, result in zip(held, results, strict=True):
            place.copy_(result)
        return held

    return run


def shallow(name: str) -> Any:
    """Dynamo takes its time for every layer."""
    pipe = make(name)
    if name == "sd":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            pipe.unet = tiny_unet().eval().requires_grad_(False)
    else:
        del pipe.transformer.transformer_blocks[2:]
        if name == "flux-dev":
            del pipe.transformer.single_transformer_blocks[2:]
    return pipe


def result(name: str, pipe: Any, **options: Any) -> Tensor:
    height, width = SIZES[name]
    return run(name, pipe, **{"height": height, "width": width} | options)


def denoiser_of(name: str, pipe: Any) -> Any:
    return getattr(pipe, FAMILIES[name].denoiser)


def compile_assigned(name: str, pipe: Any, **options: Any) -> None:
    setattr(pipe, FAMILIES[name].denoiser, torch.compile(denoiser_of(name, pipe), **options))


def compile_in_place(name: str, pipe: Any, **options: Any) -> None:
    denoiser_of(name, pipe).compile(**options)


def compile_blocks(name: str, pipe: Any, **options: Any) -> None:
    if name == "pixart-alpha":  # which does not say what its repeated blocks are
        for block in pipe.transformer.transformer_blocks:
            block.compile(**options)
    else:
        denoiser_of(name, pipe).compile_repeated_blocks(**options)


def cached(name: str, pipe: Any, **fields: Any) -> Policy:
    names = {unit.name for unit in find_units(denoiser_of(name, pipe)).units}
    units = [unit for unit in CACHED if unit in names]
    rule = {"units": units, "compute_steps": (0, 2)} | fields.pop("rule", {})
    return Policy(steps=STEPS, cache=(CacheRule(**rule),), **fields)


def under(name: str, policy: Policy, **options: Any) -> Tensor:
    pipe = shallow(name)
    with applied(pipe, policy):
        return result(name, pipe, **options)


def plan_of(name: str, pipe: Any, policy: Policy) -> Plan:
    size = 8 if name == "sd" else 16
    guided = FAMILIES[name].guidance == "batched"
    return compile_plan(policy, find_units(denoiser_of(name, pipe)), size, size, guided=guided)


def kinds(plan: Plan) -> int:
    """How many of the steps differ for the denoiser."""
    return len(
        {
            (step.height, step.width, step.branches, step.actions, step.keep)
            + tuple((unit, len(terms)) for unit, terms in sorted(step.sources.items()))
            for step in plan.steps
        }
    )


def compiled_under(name: str, compile: Callable[..., None], order: str, policy: Policy, **options: Any) -> Any:
    pipe = shallow(name)
    if order == "compiled first":
        compile(name, pipe, **options)
    apply_policy(pipe, policy)
    if order == "policy first":
        compile(name, pipe, **options)
    return pipe


@pytest.mark.parametrize(
    "name, order",
    [("sd", "compiled first"), ("pixart-alpha", "policy first"), ("flux-dev", "compiled first")],
)
def test_compiled_blocks_have_the_plain_models_graphs(name: str, order: str) -> None:
    plain = Counting()
    pipe = shallow(name)
    compile_blocks(name, pipe, backend=plain, fullgraph=True)
    result(name, pipe)
    assert plain.graphs > 0
    torch._dynamo.reset()

    backend = Counting()
    policy = cached(name, pipe)
    pipe = compiled_under(name, compile_blocks, order, policy, backend=backend, fullgraph=True)
    torch.testing.assert_close(result(name, pipe), under(name, policy))
    # A second graph where a block's input lies in memory as what is reused does, and as what is computed does not.
    assert backend.graphs <= plain.graphs + 1
    before = backend.graphs
    torch.testing.assert_close(result(name, pipe), under(name, policy))
    assert backend.graphs == before
    remove_policy(pipe)
    torch.testing.assert_close(result(name, pipe), result(name, shallow(name)))


def test_compiled_blocks_at_several_sizes_and_batches() -> None:
    """Once as given, once with dynamic sizes."""
    name, backend = "flux-dev", Counting()
    policy = cached(name, shallow(name), resolution=(ResolutionStage(scale=0.5, until_step=2),))
    pipe = compiled_under(name, compile_blocks, "compiled first", policy, backend=backend, fullgraph=True)
    for batch in (1, 2):
        torch.testing.assert_close(result(name, pipe, batch=batch), under(name, policy, batch=batch))
    settled = backend.graphs
    for batch in (3, 1):
        result(name, pipe, batch=batch)
    assert backend.graphs == settled


@pytest.mark.parametrize("mode", ["residual", "forecast"])
def test_compiled_blocks_that_are_forecast_or_whose_residual_is_added(mode: str) -> None:
    name, backend = "flux-dev", Counting()
    rule: dict[str, Any] = {"mode": mode, "compute_steps": (0, 1, 3)}
    if mode == "forecast":
        rule["order"] = 1
    policy = cached(name, shallow(name), rule=rule)
    pipe = compiled_under(name, compile_blocks, "policy first", policy, backend=backend, fullgraph=True)
    torch.testing.assert_close(result(name, pipe), under(name, policy))
    # Two kinds of blocks, whose inputs lie in memory as what is computed does or as what is put out in its place.
    assert backend.graphs <= 4
    before = backend.graphs
    result(name, pipe)
    assert backend.graphs == before


def test_layers_inside_of_compiled_blocks() -> None:
    """What the layers of a block do is part of its graph."""
    name, backend = "flux-dev", Counting()
    rule = {"units": ("transformer_blocks.*.attn", "single_transformer_blocks.*.proj_mlp")}
    policy = cached(name, shallow(name), rule=rule)
    pipe = compiled_under(name, compile_blocks, "policy first", policy, backend=backend, fullgraph=True)
    torch.testing.assert_close(result(name, pipe), under(name, policy))
    # Computed and kept, or reused, in two kinds of blocks; and a second graph for how inputs lie in memory.
    assert backend.graphs <= 7
    before = backend.graphs
    result(name, pipe)
    assert backend.graphs == before


@pytest.mark.parametrize(
    "name, compile, order",
    [
        ("pixart-alpha", compile_assigned, "compiled first"),
        ("pixart-alpha", compile_in_place, "policy first"),
        pytest.param("flux-dev", compile_in_place, "compiled first", marks=pytest.mark.exhaustive),
        pytest.param("sd", compile_assigned, "compiled first", marks=pytest.mark.exhaustive),
        ("pixart-alpha", compile_assigned, "policy first"),
    ],
)
def test_a_compiled_denoiser_has_a_graph_per_kind_of_step(name: str, compile: Callable[..., None], order: str) -> None:
    backend = Counting()
    policy = cached(name, shallow(name))
    pipe = compiled_under(name, compile, order, policy, backend=backend, fullgraph=name != "sd")
    torch.testing.assert_close(result(name, pipe), under(name, policy))
    assert backend.graphs == kinds(plan_of(name, shallow(name), policy)) > 1
    before = backend.graphs
    torch.testing.assert_close(result(name, pipe), under(name, policy))
    assert backend.graphs == before
    remove_policy(pipe)
    torch.testing.assert_close(result(name, pipe), result(name, shallow(name)))


@pytest.mark.exhaustive
def test_a_compiled_denoiser_under_everything_at_once() -> None:
    name, backend = "pixart-alpha", Counting()
    stages = (ResolutionStage(scale=0.5, until_step=2, handoff="noise_matched"),)
    policy = cached(name, shallow(name), resolution=stages, guidance=Guidance(start_step=1, stop_step=4))
    pipe = compiled_under(name, compile_in_place, "compiled first", policy, backend=backend)
    torch.testing.assert_close(result(name, pipe), under(name, policy))
    assert backend.graphs <= kinds(plan_of(name, shallow(name), policy))
    before = backend.graphs
    result(name, pipe)
    assert backend.graphs == before


def test_blocks_compiled_inside_of_a_compiled_denoiser() -> None:
    """Dynamo traces through compiled blocks into their forwards; the policy is followed there."""
    name, backend = "pixart-alpha", Counting()
    policy = cached(name, shallow(name))
    pipe = compiled_under(name, compile_blocks, "compiled first", policy, backend=backend)
    torch.testing.assert_close(result(name, pipe), under(name, policy))
    compile_in_place(name, pipe, backend=backend)
    torch.testing.assert_close(result(name, pipe), under(name, policy))
    remove_policy(pipe)
    torch.testing.assert_close(result(name, pipe), result(name, shallow(name)))


@pytest.mark.parametrize(
    ("name", "compile"), [("flux-dev", compile_blocks), ("pixart-alpha", compile_in_place)], ids=["blocks", "whole"]
)
def test_what_is_kept_outlives_the_next_run_of_the_graph(name: str, compile: Callable[..., None]) -> None:
    """A forecast reads what two steps computed."""
    rule = {"mode": "forecast", "order": 1, "compute_steps": (0, 1, 3)}
    policy = cached(name, shallow(name), rule=rule)
    pipe = compiled_under(name, compile, "compiled first", policy, backend=overwriting)
    torch.testing.assert_close(result(name, pipe), under(name, policy))


def test_beyond_dynamos_limit_steps_run_uncompiled() -> None:
    name, backend = "pixart-alpha", Counting()
    policy = cached(name, shallow(name))
    with torch._dynamo.config.patch(recompile_limit=1):
        pipe = compiled_under(name, compile_in_place, "compiled first", policy, backend=backend)
        torch.testing.assert_close(result(name, pipe), under(name, policy))
    assert backend.graphs == 1


def test_through_the_ahead_of_time_tracer() -> None:
    from torch._dynamo.backends.debugging import aot_eager

    name, backend = "pixart-alpha", Counting(aot_eager)
    policy = cached(name, shallow(name))
    pipe = compiled_under(name, compile_blocks, "compiled first", policy, backend=backend, fullgraph=True)
    torch.testing.assert_close(result(name, pipe), under(name, policy), rtol=1e-4, atol=1e-4)


@pytest.mark.exhaustive
@pytest.mark.parametrize("compile", [compile_blocks, compile_in_place], ids=["blocks", "in place"])
def test_through_inductor(compile: Callable[..., None]) -> None:
    name = "flux-dev"
    policy = cached(name, shallow(name))
    pipe = compiled_under(name, compile, "compiled first", policy)
    torch.testing.assert_close(result(name, pipe), under(name, policy), rtol=1e-3, atol=1e-3)
