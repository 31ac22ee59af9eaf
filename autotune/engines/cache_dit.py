"""Policies as configurations of cache-dit (https://github.com/vipshop/cache-dit), which SGLang and vLLM-Omni build in.

cache-dit takes the blocks of a transformer as one list. In every step it computes the first ``Fn_compute_blocks`` and
the last ``Bn_compute_blocks``. The blocks between are computed where ``steps_computation_mask`` says 1. Elsewhere
their last output minus input is added to their present input: mode ``residual`` over a range of blocks. With its
TaylorSeer calibrator that residual is the line through the last two: mode ``residual`` of order 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.core.errors import InputError
from autotune.engines.refusals import BLOCKS, EngineError, check_no_weights, check_steps, lever_of, reusing
from autotune.plan.structure import Structure
from autotune.policy import CacheRule, Policy

NAME = "cache-dit"
VERSION = "1.5.3"
"""Of the package that configurations were compared with."""

# The lists of blocks that cache-dit takes for one, by pipeline: those on which both were found to agree.
_BLOCKS = ("transformer_blocks",)
_FLUX = ("transformer_blocks", "single_transformer_blocks")
LISTS: Mapping[str, tuple[str, ...]] = {
    "DiTPipeline": _BLOCKS,
    "FluxKontextPipeline": _FLUX,
    "FluxPipeline": _FLUX,
    "HunyuanDiTPipeline": ("blocks",),
    "PixArtAlphaPipeline": _BLOCKS,
    "PixArtSigmaPipeline": _BLOCKS,
    "QwenImagePipeline": _BLOCKS,
    "SanaPipeline": _BLOCKS,
    "StableDiffusion3Pipeline": _BLOCKS,
    "WanPipeline": ("blocks",),
}
# Its calibrator has no slope before it has seen so many steps, whatever it has computed.
_FIRST_SLOPE = 3


def exportable_blocks(structure: Structure, pipeline: str) -> tuple[str, ...]:
    """Names of the blocks that cache-dit takes for one list, in order.

    Args:
        structure: Of the denoiser.
        pipeline: Name of the pipeline's class.

    Raises:
        InputError: cache-dit does not run the pipeline, or nobody has compared what it computes there.
    """
    if pipeline not in LISTS:
        raise InputError(f"policies for {pipeline} cannot be exported to {NAME}; those for {', '.join(LISTS)} can")
    prefixes = LISTS[pipeline]
    names = [unit.name for unit in structure.units if unit.kind == "block"]
    return tuple(name for name in names if name.rpartition(".")[0] in prefixes)


def cache_dit_config(
    policy: Policy, structure: Structure, pipeline: str, *, separate_guidance: bool, calls: Sequence[int] | None = None
) -> str:
    """The YAML file that ``cache_dit.load_configs`` reads, for the same blocks in the same steps.

    Args:
        policy: The policy.
        structure: Of the denoiser it is for.
        pipeline: Name of the pipeline's class.
        separate_guidance: Whether a step of the calls to come is two calls of the denoiser, one for each branch.
        calls: How often the scheduler has the denoiser called in each step; once by default.

    Raises:
        InputError: cache-dit does not run the pipeline.
        EngineError: it lacks a lever that the policy pulls.
    """
    blocks = exportable_blocks(structure, pipeline)
    check_steps(policy, NAME, calls or [1] * policy.steps)
    rules = reusing(policy)
    first, last, order, compute = 1, 0, 0, frozenset(range(policy.steps))
    if rules:
        first, last = _range(rules, structure, blocks)
        order, compute = rules[0].order or 0, frozenset(rules[0].compute_steps)
        if order:
            _check_forecast(order, sorted(compute), policy.steps)
    settings: dict[str, Any] = {
        "Fn_compute_blocks": first,
        "Bn_compute_blocks": last,
        "max_warmup_steps": 0,
        "enable_separate_cfg": separate_guidance,
        "num_inference_steps": policy.steps,
        "steps_computation_mask": [int(step in compute) for step in range(policy.steps)],
        "steps_computation_policy": "static",
    }
    if order:
        settings |= {
            "enable_taylorseer": True,
            "enable_encoder_taylorseer": True,
            "taylorseer_cache_type": "residual",
            "taylorseer_order": order,
        }
    lines = [f"  {key}: {json.dumps(value)}" for key, value in settings.items()]
    return "\n".join([*_heading(policy, pipeline, separate_guidance), "cache_config:", *lines, ""])


def _heading(policy: Policy, pipeline: str, separate_guidance: bool) -> list[str]:
    calls = f"num_inference_steps={policy.steps}"
    guidance = "guidance in a second call of the transformer" if separate_guidance else "one call of the transformer"
    return [f"# PostDiff policy {policy.id}, for {pipeline} called with {calls} and {guidance} in each step."]


def _range(rules: Sequence[CacheRule], structure: Structure, blocks: Sequence[str]) -> tuple[int, int]:
    """How many blocks before and after the ones that rest are computed in every step.

    Raises:
        EngineError: what rests is no range of blocks that keeps a residual, in the same steps throughout.
    """
    places = {name: place for place, name in enumerate(blocks)}
    resting: set[int] = set()
    for rule in rules:
        lever = lever_of(rule, structure)
        if lever != BLOCKS:
            raise EngineError(NAME, lever, "it reuses whole blocks, not the layers inside of them")
        if rule.mode != "residual":
            raise EngineError(NAME, lever, f"it adds what blocks added, mode 'residual', not mode {rule.mode!r}")
        check_no_weights(rule, NAME)
        if (rule.order, rule.compute_steps) != (rules[0].order, rules[0].compute_steps):
            raise EngineError(NAME, lever, "all blocks that rest there do so in the same steps")
        for end, begin in structure.resolve(rule.units).items():
            names = structure.units[begin].name, structure.units[end].name
            if any(name not in places for name in names):
                raise EngineError(NAME, lever, f"{names[0]} is not among the blocks that it takes for its list")
            resting |= set(range(places[names[0]], places[names[1]] + 1))
    first, end = min(resting), max(resting) + 1
    if resting != set(range(first, end)):
        raise EngineError(NAME, BLOCKS, "the blocks that rest there are one range")
    if not first:
        raise EngineError(NAME, BLOCKS, f"it computes the first block, {blocks[0]}, in every step")
    return first, len(blocks) - end


def _check_forecast(order: int, compute: Sequence[int], steps: int) -> None:
    """Refuse forecasts that come out otherwise there.

    Raises:
        EngineError: They do.
    """
    if order > 1:
        raise EngineError(NAME, "forecasting", "its second order is not the parabola through the last three")
    for step in set(range(steps)) - set(compute):
        before = [each for each in compute if each < step]
        if len(before) > 1 and before[-1] < _FIRST_SLOPE:
            raise EngineError(
                NAME,
                "forecasting",
                f"it has no slope from steps before {_FIRST_SLOPE}, and step {step} follows {before[-1]};"
                f" compute steps 0 to {_FIRST_SLOPE}",
            )
