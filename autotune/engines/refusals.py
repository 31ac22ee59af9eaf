"""What no other engine takes from its cache's configuration, and how a lever is refused."""

from __future__ import annotations

from collections.abc import Sequence

from autotune.core.errors import PolicyError
from autotune.plan.structure import Structure
from autotune.policy import CacheRule, Policy

BLOCKS, LAYERS, CROSS, FORECAST = "reuse_of_blocks", "reuse_of_layers", "reuse_of_cross_attention", "forecasting"
_CROSS_KIND = "cross-attention"


class EngineError(PolicyError):
    """An engine cannot run a policy; ``lever`` names what it lacks, as search spaces call it."""

    def __init__(self, engine: str, lever: str, reason: str) -> None:
        super().__init__(f"{engine} cannot run the lever {lever}: {reason}")
        self.lever = lever


def check_steps(policy: Policy, engine: str, calls: Sequence[int]) -> None:
    """Refuse what is not a matter of caches: sizes, guidance, solvers and noise levels.

    Args:
        policy: The policy.
        engine: Its name, for the sentence.
        calls: How often the scheduler has the denoiser called in each step.

    Raises:
        EngineError: The policy pulls such a lever.
    """
    guidance = policy.guidance
    if policy.resolution:
        raise EngineError(engine, "low_resolution", "all steps of a call have one size there")
    if guidance is not None and guidance.after == "cross_attention":
        raise EngineError(engine, "gating", "guidance is the pipeline's there, and no cache follows its end")
    if guidance is not None and (guidance.start_step, guidance.stop_step) != (0, policy.steps):
        raise EngineError(engine, "guidance_interval", "guidance is the pipeline's there, in all steps or in none")
    if guidance is not None and guidance.compute_steps is not None:
        raise EngineError(engine, "guidance_rate", "guidance is the pipeline's there, which computes both branches")
    if guidance is not None and guidance.factor is not None:
        raise EngineError(engine, "guidance_strength", "guidance is the pipeline's there, and adds what it adds")
    if policy.scheduler is not None:
        raise EngineError(engine, "other_solver", "the scheduler is the pipeline's there, not the cache's")
    if policy.timesteps != "default" or policy.sigmas is not None:
        raise EngineError(engine, "other_noise_levels", "noise levels are the pipeline's there, not the cache's")
    if set(calls) != {1}:
        raise EngineError(engine, "other_solver", "it counts calls, and this scheduler calls the model twice in a step")


def check_no_weights(rule: CacheRule, engine: str) -> None:
    """Refuse forecasts by weights.

    Raises:
        EngineError: The rule has some.
    """
    if rule.weights is not None:
        raise EngineError(engine, FORECAST, "its forecasts are polynomials, without weights that a policy lists")


def reusing(policy: Policy) -> tuple[CacheRule, ...]:
    """The cache rules that let anything be reused."""
    return tuple(rule for rule in policy.cache if len(rule.compute_steps) < policy.steps)


def lever_of(rule: CacheRule, structure: Structure) -> str:
    """The lever that a cache rule is, as search spaces call it."""
    kinds = {structure.units[unit].kind for unit in structure.resolve(rule.units)}
    if rule.mode == "residual" or "block" in kinds:
        return BLOCKS
    if rule.mode == "forecast":
        return FORECAST
    return CROSS if kinds == {_CROSS_KIND} else LAYERS
