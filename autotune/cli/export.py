"""``postdiff export``: a policy as another engine's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autotune.cli.models import ModelSource
from autotune.core.faults import during
from autotune.core.records import write_atomically
from autotune.engines import cache_dit_config, diffusers_config
from autotune.engines.refusals import reusing
from autotune.pipelines.families import family_of
from autotune.pipelines.units import find_units
from autotune.policy import Policy
from autotune.runtime.apply import plain_scheduler
from autotune.runtime.models import denoiser_of
from autotune.runtime.timesteps import count_calls


def configuration(pipe: Any, policy: Policy, engine: str, *, guided: bool | None = None) -> str:
    """What an engine reads, for calls of a pipeline under a policy.

    Args:
        pipe: Its weights are not needed.
        policy: The policy.
        engine: One of :data:`autotune.engines.ENGINES`.
        guided: Whether calls are made with classifier-free guidance; None is what the pipeline does by default.

    Raises:
        InputError: the engine does not run the pipeline, or lacks a lever that the policy pulls.
    """
    denoiser, family = denoiser_of(pipe), family_of(pipe)
    structure, calls = find_units(denoiser), count_calls(plain_scheduler(pipe), policy, pipe)
    if engine == "cache-dit":
        separate = family.branches == "separate" and (family.guided if guided is None else guided)
        return cache_dit_config(policy, structure, type(pipe).__name__, separate_guidance=separate, calls=calls)
    modules = [name for name, _ in denoiser.named_modules()] if hasattr(denoiser, "enable_cache") else []
    return diffusers_config(policy, structure, type(denoiser).__name__, modules, calls=calls)


def run_export(source: ModelSource, policy: Policy, engine: str, out: Path, *, guided: bool | None) -> None:
    """Write the configuration whole or not at all, and say how it is to be called."""
    with during("while loading the model"):
        pipe = source.weightless_pipeline()
    write_atomically(out, configuration(pipe, policy, engine, guided=guided))
    computing = {len(rule.compute_steps) for rule in reusing(policy)}
    cached = f", of which {computing.pop()} compute all blocks" if computing else ""
    print(f"Wrote {out}: call {engine} with num_inference_steps={policy.steps}{cached}")
