"""Against cache-dit itself: the same blocks in the same steps, and the same pictures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import cache_dit
import pytest
import torch

from autotune.cli.export import configuration
from autotune.core.errors import InputError
from autotune.engines import EngineError, exportable_blocks
from autotune.engines.cache_dit import LISTS
from autotune.pipelines.units import find_units
from autotune.policy import CacheRule, Policy
from autotune.runtime import applied
from search_spaces import SearchSpace, space_for
from tests.peers.watch import Work, watched
from tests.support.builders import FAMILIES

STEPS = 10
COMPUTE = (0, 1, 2, 3, 5, 8)
RESTING = [4, 6, 7, 9]
# In two branches of guidance each by a call of its own, in two by one call, and without guidance.
SEPARATE = ("flux", "qwen-image", "wan", "flux-kontext")
OTHERS = ("sd3", "pixart-alpha", "pixart-sigma", "dit", "hunyuandit", "sana")


@cache
def pipeline(family: str) -> Any:
    return FAMILIES[family].make()


def run(family: str, *, guided: bool = True) -> tuple[torch.Tensor, Work]:
    tiny, pipe = FAMILIES[family], pipeline(family)
    with watched(getattr(pipe, tiny.denoiser)) as work:
        return tiny.run(pipe, **tiny.arguments(steps=STEPS, guidance=guided)), work


@contextmanager
def configured(family: str, text: str, folder: Path) -> Iterator[Any]:
    """The pipeline under cache-dit, by a file that its own loader reads."""
    file = folder / "cache.yaml"
    file.write_text(text)
    pipe = pipeline(family)
    cache_dit.enable_cache(pipe, **cache_dit.load_configs(str(file), return_dict=True))
    try:
        yield pipe
    finally:
        cache_dit.disable_cache(pipe)


def resting(family: str, before: int, after: int, order: int | None = None, compute: Any = COMPUTE) -> Policy:
    """All but the first and last blocks add what they added."""
    pipe = pipeline(family)
    blocks = exportable_blocks(find_units(pipe.transformer), type(pipe).__name__)
    units = blocks[before : len(blocks) - after]
    rule = CacheRule(units=units, mode="residual", order=order, compute_steps=compute)
    return Policy(version=2 if order else 1, steps=STEPS, cache=(rule,))


def compare(family: str, policy: Policy, folder: Path, *, guided: bool = True) -> None:
    plain, _ = run(family, guided=guided)
    with applied(pipeline(family), policy):
        ours, our_work = run(family, guided=guided)
    text = configuration(pipeline(family), policy, "cache-dit", guided=guided)
    with configured(family, text, folder) as pipe:
        theirs, their_work = run(family, guided=guided)
        stats = cache_dit.summary(pipe, logging=False)[0]
        again, _ = run(family, guided=guided)
    assert stats.cached_steps == RESTING
    assert stats.cfg_cached_steps == (RESTING if guided and family in SEPARATE else [])
    assert our_work.calls == their_work.calls
    assert float((ours - theirs).abs().max()) < 1e-4 < float((ours - plain).abs().max())
    assert torch.equal(theirs, again)


@pytest.mark.parametrize("order", [None, 1])
@pytest.mark.parametrize("family", [*SEPARATE, *OTHERS])
def test_the_same_blocks_in_the_same_steps_and_the_same_pictures(
    family: str, order: int | None, tmp_path: Path
) -> None:
    compare(family, resting(family, 1, 1, order), tmp_path)


@pytest.mark.parametrize("family", SEPARATE[:2])
def test_without_guidance(family: str, tmp_path: Path) -> None:
    compare(family, resting(family, 2, 0), tmp_path, guided=False)


# Of FLUX across both of its lists; of HunyuanDiT across long skips.
@pytest.mark.parametrize(("family", "before", "after"), [("flux", 1, 5), ("flux", 5, 1), ("hunyuandit", 2, 0)])
def test_ranges(family: str, before: int, after: int, tmp_path: Path) -> None:
    compare(family, resting(family, before, after), tmp_path)


def test_steps_alone_cache_nothing(tmp_path: Path) -> None:
    plain, _ = run("sd3")
    with configured("sd3", configuration(pipeline("sd3"), Policy(steps=STEPS), "cache-dit"), tmp_path) as pipe:
        assert torch.equal(run("sd3")[0], plain)
        assert cache_dit.summary(pipe, logging=False)[0].cached_steps == []


def rule(*units: str, **fields: Any) -> dict[str, Any]:
    return {"cache": [{"units": units, "compute_steps": COMPUTE, **fields}]}


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "size": ("low_resolution", {"resolution": [{"scale": 0.5, "until_step": 4}]}, "one size"),
    "guidance": ("guidance_interval", {"guidance": {"start_step": 0, "stop_step": 5}}, "in all steps or in none"),
    "a rate": (
        "guidance_rate",
        {"version": 3, "guidance": {"stop_step": STEPS, "compute_steps": [0, 2]}},
        "computes both branches",
    ),
    "strength": (
        "guidance_strength",
        {"version": 4, "guidance": {"stop_step": STEPS, "factor": 1.5}},
        "adds what it adds",
    ),
    "solver": ("other_solver", {"scheduler": {"name": "DPMSolverMultistepScheduler"}}, "the pipeline's there"),
    "noise": ("other_noise_levels", {"timesteps": "karras"}, "the pipeline's there"),
    "layers": ("reuse_of_layers", rule("**.ff"), "not the layers inside"),
    "weights": (
        "forecasting",
        {"version": 3} | rule("transformer_blocks.1-2", mode="residual", weights=((1.1,),) * (STEPS - len(COMPUTE))),
        "without weights that a policy lists",
    ),
    "layers, forecast": ("forecasting", rule("**.ff", mode="forecast", order=1), "not the layers inside"),
    "outputs": ("reuse_of_blocks", rule("transformer_blocks.1-2"), "mode 'residual', not mode 'reuse'"),
    "the first block": ("reuse_of_blocks", rule("transformer_blocks.0-2", mode="residual"), "transformer_blocks.0"),
    "two ranges": (
        "reuse_of_blocks",
        rule("transformer_blocks.1", "transformer_blocks.3", mode="residual"),
        "one range",
    ),
    "second order": ("forecasting", rule("transformer_blocks.1-2", mode="residual", order=2), "not the parabola"),
    "too early": (
        "forecasting",
        rule("transformer_blocks.1-2", mode="residual", order=1, compute_steps=(0, 1, 2, 5)),
        "it has no slope from steps before 3, and step 3 follows 2",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_lacks_is_refused_by_the_name_of_the_lever(case: str) -> None:
    lever, fields, says = REFUSED[case]
    with pytest.raises(EngineError, match=says) as refused:
        configuration(pipeline("sd3"), Policy(**{"version": 2, "steps": STEPS, **fields}), "cache-dit")
    assert refused.value.lever == lever and f"the lever {lever}:" in str(refused.value)


def test_blocks_that_compute_in_different_steps_are_refused() -> None:
    rules = tuple(
        CacheRule(units=(f"transformer_blocks.{n}",), mode="residual", compute_steps=(0, n + 2)) for n in (1, 2)
    )
    with pytest.raises(EngineError, match="reuse_of_blocks: all blocks that rest there do so in the same steps"):
        configuration(pipeline("sd3"), Policy(steps=STEPS, cache=rules), "cache-dit")


@pytest.mark.parametrize("family", ["sd", "sd3-img2img", "chroma", "flux-controlnet"])
def test_pipelines_that_nobody_compared_are_refused(family: str) -> None:
    pipe = FAMILIES[family].make()
    with pytest.raises(InputError, match=f"policies for {type(pipe).__name__} cannot be exported to cache-dit"):
        configuration(pipe, Policy(steps=4), "cache-dit")
    with pytest.raises(InputError, match="--space cache-dit: policies for"):
        space_for(pipe, engine="cache-dit")


def test_every_pipeline_that_is_exported_was_compared() -> None:
    assert {FAMILIES[family].pipeline for family in (*SEPARATE, *OTHERS)} == set(LISTS)


def spaces(family: str, engine: str | None) -> SearchSpace:
    return space_for(pipeline(family), steps=STEPS, engine=engine)


@pytest.mark.parametrize("family", ["flux", "sd3", "qwen-image"])
def test_all_samples_of_the_narrowed_space_export_and_load(family: str, tmp_path: Path) -> None:
    space = spaces(family, "cache-dit")
    found = {space.sample(seed).key: space.sample(seed) for seed in range(20)}
    assert sum(bool(policy.cache) for policy in found.values()) >= 4
    for policy in found.values():
        text = configuration(pipeline(family), policy, "cache-dit")
        with configured(family, text, tmp_path) as pipe:
            config = next(iter(pipe._context_manager._cached_context_manager.values()), None)
            assert config is None or config.cache_config.steps_computation_policy == "static"
    for recipe in space.recipes:
        configuration(pipeline(family), space.policy(recipe.values, STEPS), "cache-dit")


@pytest.mark.parametrize("family", ["flux", "sd3", "pixart-alpha"])
def test_samples_of_the_whole_space_export_or_are_refused_by_lever(family: str) -> None:
    space = spaces(family, None)
    levers = {lever.name for lever in space.levers}
    refused = []
    for seed in range(20):
        try:
            configuration(pipeline(family), space.sample(seed), "cache-dit")
        except EngineError as error:
            refused.append(error.lever)
    assert 0 < len(refused) and set(refused) <= levers
