"""Optuna's samplers by name, with a seed for every trial."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping

import optuna
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler

from autotune.core.errors import InputError, did_you_mean
from autotune.core.fingerprint import digest

# Random candidates only help until there is something to learn from; the recipes are enough of a start.
_START_UP_TRIALS = 10
# As many as a search of a few dozen trials has several generations of.
_POPULATION = 16
# Of all candidates these are the good ones, that others should resemble. Optuna's tenth are two or three for as long as
# most searches take, too few to tell what they have in common (studies/search_efficiency.py).
_GOOD = 1 / 4

_SAMPLERS: Mapping[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(
        # What other workers are evaluating counts as bad, so that nobody proposes it again.
        seed=seed,
        multivariate=True,
        # A lever's knobs are a group, learned from the trials that pull it.
        group=True,
        constant_liar=True,
        n_startup_trials=_START_UP_TRIALS,
        gamma=lambda trials: math.ceil(_GOOD * trials),
    ),
    "gp": lambda seed: GPSampler(seed=seed, n_startup_trials=_START_UP_TRIALS),
    "cmaes": lambda seed: CmaEsSampler(seed=seed, n_startup_trials=_START_UP_TRIALS, warn_independent_sampling=False),
    "nsga2": lambda seed: NSGAIISampler(seed=seed, population_size=_POPULATION),
    "random": lambda seed: RandomSampler(seed=seed),
}

NAMES = tuple(_SAMPLERS)

LEARN_FROM_PRUNED = ("tpe", "random")
"""Those that lose nothing when candidates are pruned; the others ignore such trials."""


CONDITIONAL = ("tpe", "random")
"""Those that understand that some trials lack parameters; the others learn only of parameters that all trials have."""


def check_sampler(name: str) -> None:
    """Raise InputError unless there is a sampler of that name."""
    if name not in _SAMPLERS:
        raise InputError(f"there is no sampler called {name!r}{did_you_mean(name, NAMES)}")


def sampler_for(name: str, seed: int, trials_so_far: int, *, attempt: int = 0, explore: bool = False) -> BaseSampler:
    """The sampler for the next trial, seeded by how many there are.

    A sampler's own random state dies with the process. A seed for every trial makes a
    resumed search go on as the uninterrupted one would have. (An interrupt among the queued
    recipes moves one of them to the end of the queue, and what follows may differ.)

    Args:
        name: ``tpe`` (multivariate), ``gp``, ``cmaes``, ``nsga2`` or ``random``.
        seed: The search's seed.
        trials_so_far: Trials that ended.
        attempt: How often it has proposed something for the next trial already.
        explore: Draw at random instead of from the model.

    Raises:
        InputError: there is no such sampler.
    """
    check_sampler(name)
    trial_seed = int(digest([seed, trials_so_far, *([attempt] if attempt else [])]), 16) % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Of ``gamma``, which goes with Optuna 6.
        warnings.simplefilter("ignore", FutureWarning)
        return _SAMPLERS["random" if explore else name](trial_seed)
