"""Against the caches of diffusers, by configurations that are read as the room's README says."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
from diffusers import TaylorSeerCacheConfig

from autotune.cli.export import configuration
from autotune.core.errors import InputError
from autotune.engines import EngineError
from autotune.policy import CacheRule, Policy
from autotune.runtime import applied
from search_spaces import space_for
from tests.peers.watch import Work, watched
from tests.support.builders import FAMILIES

STEPS = 12
LAYERS = {"flux": ("**.attn", "**.ff", "**.ff_context", "**.proj_mlp"), "qwen-image": ("**.attn", "**.img_mlp")}


@cache
def pipeline(family: str) -> Any:
    return FAMILIES[family].make()


def run(family: str) -> tuple[torch.Tensor, Work]:
    tiny, pipe = FAMILIES[family], pipeline(family)
    with watched(pipe.transformer) as work:
        return tiny.run(pipe, **tiny.arguments(steps=STEPS)), work


def policy(*units: str, compute: tuple[int, ...], mode: Any = "reuse", order: int | None = None) -> Policy:
    return Policy(steps=STEPS, cache=(CacheRule(units=units, mode=mode, order=order, compute_steps=compute),))


@pytest.mark.parametrize("family", LAYERS)
@pytest.mark.parametrize(
    ("mode", "order", "compute"),
    [
        ("reuse", None, (0, 2, 4, 6, 8, 10)),
        ("reuse", None, (0, 3, 6, 9)),
        ("forecast", 1, (0, 1, 3, 6, 9)),
        ("forecast", 1, (0, 1, 2, 4, 8, 10, 11)),
    ],
)
def test_layers(family: str, mode: str, order: int | None, compute: tuple[int, ...]) -> None:
    compare(family, policy(*LAYERS[family], compute=compute, mode=mode, order=order))


@pytest.mark.parametrize(("mode", "order"), [("reuse", None), ("forecast", 1)])
def test_a_block_and_nothing_that_feeds_it_alone(mode: str, order: int | None) -> None:
    """What nobody needs is not computed there either: of the blocks before it, and of its own parts."""
    rules = policy("single_transformer_blocks.1", compute=(0, 1, 3, 5, 7, 9, 11), mode=mode, order=order)
    document = json.loads(configuration(pipeline("flux"), rules, "diffusers"))
    skipped = document["TaylorSeerCacheConfig"]["skip_predict_identifiers"]
    assert skipped == [rf"transformer_blocks\.{n}" for n in range(4)] + [r"single_transformer_blocks\.0"]
    compare("flux", rules)


def compare(family: str, under: Policy) -> None:
    pipe = pipeline(family)
    plain, _ = run(family)
    with applied(pipe, under):
        ours, our_work = run(family)
    document = json.loads(configuration(pipe, under, "diffusers"))
    assert document["num_inference_steps"] == STEPS
    arguments = document["TaylorSeerCacheConfig"]
    pipe.transformer.enable_cache(
        TaylorSeerCacheConfig(**arguments | {"taylor_factors_dtype": getattr(torch, arguments["taylor_factors_dtype"])})
    )
    try:
        theirs, their_work = run(family)
    finally:
        pipe.transformer.disable_cache()
    # A linear layer that is reused itself is called there and gives what it gave: its hook is on its forward.
    reused = {name for calls in our_work.calls for name in calls} & {name for name in names(pipe) if "proj_mlp" in name}
    assert [calls - reused for calls in our_work.calls] == [calls - reused for calls in their_work.calls]
    assert float((ours - theirs).abs().max()) < 1e-4 < 1e-3 < float((ours - plain).abs().max())


def names(pipe: Any) -> list[str]:
    return [name for name, _ in pipe.transformer.named_modules()]


@pytest.mark.parametrize(
    ("family", "lever", "fields", "says"),
    [
        ("flux", "reuse_of_blocks", {"units": ["transformer_blocks.1"], "mode": "residual"}, "keep outputs"),
        ("flux", "forecasting", {"units": ["**.attn"], "mode": "forecast", "order": 2}, "not the parabola"),
        (
            "flux",
            "forecasting",
            {"units": ["**.attn"], "mode": "forecast", "weights": ((1.1,),) * (STEPS - 6)},
            "without weights that a policy lists",
        ),
        ("flux", "reuse_of_layers", {"units": ["**.attn"], "compute_steps": (0, 1, 3, 4, 9)}, "every so many steps"),
    ],
)
def test_what_they_lack_is_refused_by_lever(family: str, lever: str, fields: dict[str, Any], says: str) -> None:
    rule = CacheRule(**{"compute_steps": (0, 2, 4, 6, 8, 10), **fields})
    with pytest.raises(EngineError, match=says) as refused:
        configuration(pipeline(family), Policy(version=3, steps=STEPS, cache=(rule,)), "diffusers")
    assert refused.value.lever == lever


def test_without_caches_or_without_reuse_there_is_nothing_to_configure() -> None:
    with pytest.raises(InputError, match="SD3Transformer2DModel has no enable_cache"):
        configuration(FAMILIES["sd3"].make(), policy("**.ff", compute=(0, 2)), "diffusers")
    with pytest.raises(InputError, match="reuses nothing: call the pipeline with its number of steps"):
        configuration(pipeline("flux"), Policy(steps=STEPS), "diffusers")


def test_samples_of_the_whole_space_export_or_are_refused_by_lever() -> None:
    space = space_for(pipeline("flux"), steps=STEPS)
    levers = {lever.name for lever in space.levers}
    for seed in range(20):
        try:
            configuration(pipeline("flux"), space.sample(seed), "diffusers")
        except EngineError as error:
            assert error.lever in levers
        except InputError as error:
            assert "reuses nothing" in str(error)
    recipes = {recipe.name: recipe.values for recipe in space.recipes}
    for name in ("FORA, interval 2", "FORA, interval 3"):
        configuration(pipeline("flux"), space.policy(recipes[name], STEPS), "diffusers")
