"""What a policy would score, learned from the table: searches propose policies that nobody evaluated.

As in surrogate benchmarks of architecture search (Zela et al. 2022, arXiv 2008.09777), a regression on evaluated
entries stands for the evaluation; entries of the table score what they scored. It reads what a policy's plan does step
by step, not its knobs, so that it also serves for schedules that no knobs describe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.base import RegressorMixin, clone
from sklearn.ensemble import ExtraTreesRegressor, VotingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from autotune.cost import Pricer
from autotune.policy import Policy
from search_spaces import SearchSpace
from studies.search.table import Entry

_PARTS = 10
_FOLDS = 10

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Agreement:
    """Of predictions for entries left out with what these scored: Spearman's correlation, and with the best quarter."""

    model: str
    spearman: float
    spearman_of_best: float
    explained: float


def features(policy: Policy, space: SearchSpace, pricer: Pricer) -> Floats:
    """What a plan does, as numbers: how many steps by which solver, then tenth by tenth of the steps."""
    plan, steps = pricer.plan(policy), policy.steps
    costs = np.diff([pricer.first_calls_flops(policy, calls) for calls in range(steps + 1)])
    costs = costs / (pricer.full_cost().flops / pricer.full_steps)
    listed = space.explicit_noise_levels(policy)
    levels = np.array(
        listed.sigmas or (listed.timesteps if isinstance(listed.timesteps, tuple) else range(steps, 0, -1))
    )
    guided = np.zeros(steps)
    start, stop = (policy.guidance.start_step, policy.guidance.stop_step) if policy.guidance else (0, steps)
    guided[start:stop] = 1
    scales = np.array([step.height / pricer.height for step in plan.steps])
    fresh = np.ones(steps)
    for rule in policy.cache:
        computes = np.isin(np.arange(steps), rule.compute_steps)
        fresh -= ~computes / len(policy.cache)
    parts = ((np.arange(_PARTS) + 0.5) / _PARTS * steps).astype(int)
    counts = [
        steps,
        start / steps,
        stop / steps,
        policy.guidance is not None and policy.guidance.after == "cross_attention",
        sum(stage.until_step for stage in policy.resolution) / steps,
        any(stage.handoff == "noise_matched" for stage in policy.resolution),
        max((rule.order or 0 for rule in policy.cache), default=0),
        sum(len(rule.compute_steps) for rule in policy.cache),
        len(policy.cache),
        float(np.min(costs)),
        float(costs[-1]),
    ]
    solvers = [policy.scheduler == solver.choice for solver in getattr(space, "solvers", ())]
    series = [values[parts] for values in (costs, levels / levels[0], guided, scales, fresh)]
    return np.concatenate([np.array(counts + solvers, dtype=float), *series])


def regressors() -> dict[str, RegressorMixin]:
    """Models that may learn the table."""
    kernel = ConstantKernel() * Matern(length_scale=10.0, nu=1.5) + WhiteKernel()
    trees = ExtraTreesRegressor(100, min_samples_leaf=2, max_features=0.5, random_state=0)
    process = make_pipeline(StandardScaler(), GaussianProcessRegressor(kernel, normalize_y=True, random_state=0))
    return {
        "extremely randomised trees": trees,
        "Gaussian process": process,
        "mean of both": VotingRegressor([("trees", trees), ("process", process)]),
    }


def agreement(entries: Sequence[Entry], rows: Floats) -> list[Agreement]:
    """How well each model predicts entries it has not seen, best first."""
    losses = _target(np.array([entry.loss for entry in entries]))
    best = losses <= np.quantile(losses, 0.25)
    found = []
    for name, model in regressors().items():
        predicted = cross_val_predict(clone(model), rows, losses, cv=KFold(_FOLDS, shuffle=True, random_state=0))
        found.append(
            Agreement(
                name,
                float(spearmanr(predicted, losses).statistic),
                float(spearmanr(predicted[best], losses[best]).statistic),
                1 - float(((predicted - losses) ** 2).sum() / ((losses - losses.mean()) ** 2).sum()),
            )
        )
    return sorted(found, key=lambda each: -each.spearman)


class Surrogate:
    """Scores policies: those of the table as they scored, others as the model says."""

    def __init__(self, entries: Sequence[Entry], rows: Floats, model: str, space: SearchSpace, pricer: Pricer) -> None:
        self._space, self._pricer = space, pricer
        self._known = {entry.plan: entry.loss for entry in entries}
        self._model = clone(regressors()[model])
        self._model.fit(rows, _target(np.array([entry.loss for entry in entries])))

    def loss(self, policy: Policy, plan: str) -> float:
        """Of a policy whose plan has the digest ``plan``."""
        if plan not in self._known:
            row = features(policy, self._space, self._pricer)
            self._known[plan] = float(_loss(self._model.predict(row[None]))[0])
        return self._known[plan]


def _target(losses: Floats) -> Floats:
    """Bad policies differ by much more than good ones, of which the search is."""
    return np.log1p(np.maximum(losses, -0.9))


def _loss(target: Floats) -> Floats:
    return np.expm1(target)
