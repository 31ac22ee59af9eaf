"""Whether another solver can stand in for a pipeline's own, given how the pipeline calls its scheduler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from autotune.core.errors import InputError, PolicyError
from autotune.pipelines.families import SchedulerCalls, family_of, scheduler_calls
from autotune.runtime.schedulers import returns_x0, scales_noise, shifts_dynamically

# Arguments of ``step`` that ask for nothing with these values, so that a solver without them computes the same. One
# that takes no generator draws no noise.
_ASKS_FOR_NOTHING: Mapping[str, Callable[[Any], bool]] = {
    "eta": lambda eta: not eta,
    "use_clipped_model_output": lambda clipped: not clipped,
    "generator": lambda generator: True,
}
_POSITIONAL = frozenset({"self", "model_output", "timestep", "sample"})


def check_solver(pipe: Any, own: Any, solver: Any) -> None:
    """Refuse a solver that the pipeline, written for ``own``, cannot call or would call wrongly.

    A pipeline that nobody has listed may pass whatever its own scheduler takes, and rely on whatever that does.

    Raises:
        PolicyError: in one sentence that names solver and pipeline.
    """
    calls = scheduler_calls(pipe)
    reason = None
    if type(solver) is not type(own):
        reason = _unlisted(pipe, own, solver) if calls is None else _listed(calls, solver)
        if reason is None and (calls is None or not calls.splits_variance) and _learns_variance(pipe):
            reason = "its denoiser predicts a variance besides, which only its own scheduler is known to take"
    if shifts_dynamically(solver) and not shifts_dynamically(own) and (calls is None or calls.mu == "never"):
        reason = "use_dynamic_shifting needs a mu, which it does not pass"
    if reason is not None:
        raise PolicyError(
            f"{type(pipe).__name__} cannot run under {type(solver).__name__}: {reason}; leave the solver out"
        )


def step_arguments(pipe: Any, solver: Any) -> frozenset[str]:
    """Names of what a listed pipeline passes to ``step`` of the solver, besides output, timestep and sample."""
    calls = scheduler_calls(pipe)
    return frozenset() if calls is None else calls.step_arguments(_taken(solver))


def fitted(pipe: Any, solver: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What the pipeline passes to ``step``, without what asks for nothing.

    Raises:
        InputError: an argument that the solver does not take asks for something.
    """
    taken, kept = _taken(solver), {}
    for name, value in arguments.items():
        # A default may be spelled as None by the pipeline, and be a number to the solver.
        if name in taken and not (name in _ASKS_FOR_NOTHING and value is None):
            kept[name] = value
        elif not _ASKS_FOR_NOTHING.get(name, lambda value: value is None)(value):
            raise InputError(
                f"{type(pipe).__name__} passes {name}={value!r} to its scheduler, which {type(solver).__name__} does"
                f" not take: leave {name} out of the call, or the solver out of the policy"
            )
    return kept


def _listed(calls: SchedulerCalls, solver: Any) -> str | None:
    if calls.tells_timesteps and "timesteps" not in inspect.signature(type(solver).set_timesteps).parameters:
        return "it tells its denoiser timesteps beside the noise levels, of which this solver takes no list"
    if scales_noise(solver) and not (calls.scales_noise and calls.scales_input):
        return "it does not scale its noise for this solver"
    if calls.mixes_noise and not hasattr(solver, "scale_noise"):
        return "it has noise mixed into a picture by scale_noise, which this solver does not have"
    if calls.unpacks > 1 and not returns_x0(solver):
        return "it shows the clean picture that a step predicts, and this solver returns none"
    lost = calls.step - _taken(solver) - _ASKS_FOR_NOTHING.keys()
    return f"it passes {', '.join(sorted(lost))}, which this solver does not take" if lost else None


def _unlisted(pipe: Any, own: Any, solver: Any) -> str | None:
    if scales_noise(solver) and not scales_noise(own) and not _uses(pipe, "init_noise_sigma", "scale_model_input"):
        return "it does not scale its noise for this solver"
    # Of the pipelines that ask which arguments step takes, those of LCMs show the second value it returns.
    adapts = hasattr(pipe, "prepare_extra_step_kwargs")
    if returns_x0(own) and not returns_x0(solver) and (not adapts or type(own).__name__ == "LCMScheduler"):
        return "it may read a value that this solver's steps do not return"
    lost = _taken(own) - _taken(solver) - {"generator"}
    if lost and not adapts:
        return f"it may pass {', '.join(sorted(lost))}, which this solver does not take"
    return None


def _taken(scheduler: Any) -> frozenset[str]:
    # Of the class: the instance's method may have been replaced.
    return frozenset(inspect.signature(type(scheduler).step).parameters) - _POSITIONAL


def _learns_variance(pipe: Any) -> bool:
    denoiser = family_of(pipe).denoiser(pipe)
    config = getattr(getattr(denoiser, "_orig_mod", denoiser), "config", {})
    taken, returned = config.get("in_channels"), config.get("out_channels")
    return taken is not None and returned == 2 * taken


def _uses(pipe: Any, *names: str) -> bool:
    """Whether the code of the pipeline's class reads attributes of all these names."""
    values = [value for parent in type(pipe).__mro__ for value in vars(parent).values() if callable(value)]
    codes = [getattr(inspect.unwrap(value), "__code__", None) for value in values]
    read = {name for code in codes if code is not None for name in code.co_names}
    return read.issuperset(names)
