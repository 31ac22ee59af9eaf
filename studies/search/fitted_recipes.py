"""Methods of the field that fit a policy to the model, at the FLOPs of a budget.

They are given what their papers ask for, a few prompts and runs of the model, and nothing of the search's judges.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import autotune
from autotune.cost import Pricer
from autotune.evaluation.examples import Examples
from autotune.policy import Policy
from studies.forecasts import FORECAST_OF, RESIDUAL_OF, schedule, stack_policy
from studies.latents import errors, latents
from studies.search.fitted_noise_levels import fitted_noise_levels
from studies.search.polish import computing_step_shifts, polished
from studies.search.recipes import TOLERANCE
from studies.shipped import BATCH

BUDCACHE, L2P, FITTED_STEPS = "BudCache", "L2P", "fewer steps, fitted timesteps"
CLIMBED_ON, FITTED_ON = 8, 32
"""Prompts: that errors of latents are taken on, and that weights are fitted to."""
_EVALUATIONS = 40


class Fitter:
    """Fits policies of a shipped model at the number of steps of its full run.

    Args:
        model: Its name.
        pipe: The model.
        pricer: Of the model.
        examples: Prompts to tune on, and their seeds; the first :data:`FITTED_ON` serve.
    """

    def __init__(self, model: str, pipe: Any, pricer: Pricer, examples: Examples) -> None:
        self._model, self._pipe, self._pricer = model, pipe, pricer
        self._prompts = examples.prompts[:FITTED_ON]
        self._full = Policy(steps=pricer.full_steps)
        self._exact = self._latents(self._full)

    def methods(self, space: Any, steps: int, budget: float) -> dict[str, list[Policy]]:
        """Settings of each method by name, as :func:`studies.search.recipes.methods` gives them.

        Args:
            space: The model's search space.
            steps: Plain steps that the budget pays for.
            budget: Share of the full run's FLOPs.
        """
        compute = schedule(self._pricer, self._model, self._full.steps, budget * (1 + TOLERANCE))
        return {
            BUDCACHE: [self._masked(compute)],
            L2P: self._forecast(compute),
            FITTED_STEPS: [
                found.policy
                for solver in space.solvers
                if (found := fitted_noise_levels(solver, steps, self._error)) is not None
            ],
        }

    def _masked(self, compute: Sequence[int]) -> Policy:
        """Whole steps that compute, climbed to on the error of final latents (BudCache, arXiv 2606.13496)."""
        even = stack_policy(FORECAST_OF[self._model], self._full.steps, compute)
        return polished(even, self._error, computing_step_shifts, _EVALUATIONS).policy

    def _forecast(self, compute: Sequence[int]) -> list[Policy]:
        """Forecasts of the stack of blocks with fitted weights, and of a transformer's residual (L2P, 2604.26365)."""
        units = {"forecast": FORECAST_OF.get(self._model), "residual": RESIDUAL_OF.get(self._model)}
        lines = [
            stack_policy(unit, self._full.steps, compute, mode=mode, order=1)
            for mode, unit in units.items()
            if unit is not None
        ]
        return [autotune.fit_forecasts(self._pipe, line, self._prompts, batch_size=BATCH) for line in lines]

    def _error(self, policy: Policy) -> float:
        return float(errors(self._latents(policy), self._exact).mean())

    def _latents(self, policy: Policy) -> Any:
        return latents(self._pipe, policy, self._prompts[:CLIMBED_ON])
