"""The price of a policy: a sum over its plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autotune.cost.flops import WorkTable, count_work
from autotune.plan import Action, Plan, compile_plan
from autotune.policy import Policy
from autotune.runtime.models import default_steps, denoiser_of, native_size, text_length
from autotune.units import find_units


@dataclass(frozen=True)
class Cost:
    """What a policy costs.

    Attributes:
        flops: of the denoising loop, two per multiply-add, for the whole batch.
        macs_conv_linear: multiply-adds of convolutions and linear layers only, the papers' convention.
        relative: ``flops`` as a fraction of the full run's.
        latency_ms: pipeline time on the target, None without a hardware profile.
        cache_bytes: most memory that kept features take at any step, for the whole batch.
    """

    flops: int
    macs_conv_linear: int
    relative: float
    latency_ms: float | None
    cache_bytes: int


class Pricer:
    """Prices policies for one pipeline and one picture size; counts each latent size once.

    Args:
        pipe: the pipeline; only its configs and dtype are read.
        height, width: of the pictures, in pixels; the model's native size by default.
        full_steps: steps of the full run that costs are relative to, unless a policy names its own.
        guided: whether calls use classifier-free guidance.
    """

    def __init__(
        self,
        pipe: Any,
        height: int | None = None,
        width: int | None = None,
        *,
        full_steps: int | None = None,
        guided: bool = True,
    ) -> None:
        self._denoiser = denoiser_of(pipe)
        self._text_tokens = text_length(pipe)
        self.structure = find_units(self._denoiser)
        native = native_size(pipe)
        self.height = (height or native[0]) // pipe.vae_scale_factor
        self.width = (width or native[1]) // pipe.vae_scale_factor
        self.full_steps = full_steps or default_steps(pipe)
        self._guided = guided
        self._itemsize = next(self._denoiser.parameters()).element_size()
        self._tables: dict[tuple[int, int], WorkTable] = {}

    def price(self, policy: Policy, batch_size: int = 1) -> Cost:
        """Price ``policy`` for ``batch_size`` pictures.

        Raises:
            PolicyError: the policy does not fit the pipeline at this size.
        """
        plan = compile_plan(policy, self.structure, self.height, self.width, guided=self._guided)
        flops = macs = 0
        for step in plan.steps:
            table = self._table(step.height, step.width)
            computed = [table.units[i] for i, action in enumerate(step.actions) if action is Action.COMPUTE]
            computed.append(table.always)
            flops += step.branches * sum(work.flops for work in computed)
            macs += step.branches * sum(work.macs_conv_linear for work in computed)
        full_steps = policy.model.full_steps if policy.model else self.full_steps
        return Cost(
            flops=flops * batch_size,
            macs_conv_linear=macs * batch_size,
            relative=flops / self.full_flops(full_steps),
            latency_ms=None,
            cache_bytes=self._cache_bytes(plan) * batch_size,
        )

    def full_flops(self, steps: int | None = None) -> int:
        """FLOPs of the full run for one picture."""
        table = self._table(self.height, self.width)
        per_step = table.always.flops + sum(work.flops for work in table.units)
        return (steps or self.full_steps) * per_step * (2 if self._guided else 1)

    def _table(self, height: int, width: int) -> WorkTable:
        if (height, width) not in self._tables:
            self._tables[height, width] = count_work(self._denoiser, self.structure, height, width, self._text_tokens)
        return self._tables[height, width]

    def _cache_bytes(self, plan: Plan) -> int:
        kept: dict[tuple[int, int], int] = {}
        peak = 0
        for step in plan.steps:
            elements = self._table(step.height, step.width).elements
            for unit in step.keep:
                kept[unit, step.index] = elements[unit] * step.branches * self._itemsize
            peak = max(peak, sum(kept.values()))
            for output in step.drop:
                del kept[output]
        return peak


def price(
    pipe: Any,
    policy: Policy,
    *,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 1,
    target: str | None = None,
) -> Cost:
    """Price one policy; see :class:`Pricer` for pricing many.

    Args:
        target: a hardware profile to predict milliseconds with; not supported yet.

    Raises:
        PolicyError: the policy does not fit the pipeline.
        NotImplementedError: a target is given.

    Example:
        >>> autotune.price(pipe, policy).relative
        0.398
    """
    if target is not None:
        raise NotImplementedError("hardware profiles are not supported yet: leave target out")
    return Pricer(pipe, height, width).price(policy, batch_size)
