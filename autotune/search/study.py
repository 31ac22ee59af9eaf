"""The Optuna study: created or resumed, bound to one frozen configuration, repaired after interrupts."""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from autotune.errors import InputError
from autotune.policy import Policy, policy_from_dict
from autotune.search.storage import open_storage, shown

CONFIG = "config"
DUPLICATE_OF = "duplicate_of"
FAILURE = "failure"
RECIPE = "recipe"
REFINES = "refines"
POLICY, POLICY_ID, POLICY_KEY = "policy", "policy_id", "policy_key"

# What a trial was queued with.
_ORIGIN = (RECIPE, REFINES, POLICY)
# The same, as Optuna notes it, and how often the trial was tried.
_ASKED, _HISTORY = "fixed_params", ("failed_trial", "retry_history")

# A candidate that ends every worker is given up after the second.
_RETRIES = 1


# What only decides which policies are tried, and how their scores are weighed.
_SEARCH_ONLY = {
    "budget", "max_steps", "distance", "objective", "target", "call_batch", "max_memory", "knobs", "sampler",
    "early_stopping",
}  # fmt: skip


@dataclass(frozen=True)
class Configuration:
    """All that decides what a trial of the study scores. Two runs that differ in any of it do not mix.

    ``weights``, ``prompts``, ``held_out`` and ``target`` (of the hardware profile) are digests, ``objective`` are
    the weights of its terms, ``knobs`` is one line per knob.
    """

    model: str
    weights: str
    budget: str
    height: int
    width: int
    guidance_scale: float
    full_steps: int
    max_steps: int
    images: int
    held_out_images: int
    batch_size: int
    seed: int
    prompts: str
    held_out: str
    reference: str
    scorer: str
    network: str | None
    distance: str
    objective: tuple[float, ...]
    target: str | None
    call_batch: int | None
    max_memory: int | None
    knobs: tuple[str, ...]
    sampler: str
    early_stopping: bool

    @property
    def pictures(self) -> str:
        """A digest of all that decides what the pictures of a policy are and what judges see in them."""
        return digest({name: value for name, value in self.document().items() if name not in _SEARCH_ONLY})

    def document(self) -> dict[str, Any]:
        """As JSON gives it back, so that a stored configuration compares equal."""
        document: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return document


def digest(value: object) -> str:
    """A short hash of anything JSON can write."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def sqlite_url(path: Path) -> str:
    return f"sqlite:///{path.resolve()}"


def open_study(name: str, url: str, configuration: Configuration) -> optuna.Study:
    """Create the study ``name``, or resume it where it was left; others may be working on it.

    Args:
        name: Its name in the storage.
        url: An SQLAlchemy URL, see :func:`sqlite_url`.
        configuration: What the study is bound to.

    Raises:
        InputError: the study exists with another configuration, or the storage cannot be opened.
    """
    storage = open_storage(url, retry_once)
    study = optuna.create_study(study_name=name, storage=storage, direction="minimize", load_if_exists=True)
    stored = study.user_attrs.get(CONFIG)
    wanted = configuration.document()
    if stored is None:
        if study.get_trials(deepcopy=False):
            raise InputError(
                f"the study {name!r} in {shown(url)} was not made by this program; choose another --study-name"
            )
        study.set_user_attr(CONFIG, wanted)
    elif stored != wanted:
        raise InputError(
            f"the study {name!r} cannot be resumed: {difference(stored, wanted)};"
            " repeat the command that made it, or choose another --study-name"
        )
    return study


def put_back(study: optuna.Study, number: int) -> None:
    """Fail a RUNNING trial without counting it, and queue it again as it was before it began."""
    trial = _with_number(study, number)
    if trial.state is not TrialState.RUNNING:
        return
    study.tell(number, state=TrialState.FAIL)
    if _asked(trial) and FAILURE not in trial.user_attrs:
        study.enqueue_trial(_asked(trial), user_attrs=_origin(trial))


def retry_once(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial whose worker died once more as it was before it began, unless it had failed for a reason."""
    if FAILURE in trial.user_attrs or not _asked(trial):
        return
    fresh = copy.deepcopy(trial)
    fresh.user_attrs = _origin(trial)
    fresh.system_attrs = {name: trial.system_attrs[name] for name in _HISTORY if name in trial.system_attrs}
    fresh.system_attrs[_ASKED] = _asked(trial)
    fresh.params, fresh.distributions = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        RetryHeartbeatStaleTrialCallback(max_retry=_RETRIES)(study, fresh)


def _asked(trial: FrozenTrial) -> dict[str, Any]:
    """Knob values that a trial was queued with or had sampled."""
    return {**trial.system_attrs.get(_ASKED, {}), **trial.params}


def _origin(trial: FrozenTrial) -> dict[str, Any]:
    kept = {name: trial.user_attrs[name] for name in _ORIGIN if name in trial.user_attrs}
    if REFINES not in kept:
        # Of other trials the policy follows from the knobs.
        kept.pop(POLICY, None)
    return kept


def _with_number(study: optuna.Study, number: int) -> FrozenTrial:
    return next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)


def enqueue_recipes(study: optuna.Study, recipes: Sequence[tuple[str, Mapping[str, int]]]) -> None:
    """Queue named settings that the study does not have yet, in order."""
    trials = study.get_trials(deepcopy=False)
    # One that was cut off may have been given up by those who found it: here it gets another chance.
    lost = {trial.user_attrs.get(RECIPE) for trial in trials if _cut_off(trial)}
    lost -= {trial.user_attrs.get(RECIPE) for trial in trials if not _cut_off(trial)}
    for name, values in recipes:
        study.enqueue_trial(dict(values), user_attrs={RECIPE: name}, skip_if_exists=name not in lost)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that ran to an end, good or bad. Failed ones without a reason were cut off by an interrupt."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in trials if not _cut_off(trial)]


def _cut_off(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and FAILURE not in trial.user_attrs


def evaluated(study: optuna.Study) -> list[FrozenTrial]:
    """Finished trials that cost an evaluation: all but duplicates of earlier ones."""
    return [trial for trial in finished(study) if DUPLICATE_OF not in trial.user_attrs]


def ranked(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with a score of all pictures, one for every policy, best first."""
    complete = [trial for trial in evaluated(study) if trial.state is TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (trial.values[0], trial.number))


def policy_of(trial: FrozenTrial) -> Policy:
    """The policy that a trial evaluated."""
    return policy_from_dict(json.loads(trial.user_attrs[POLICY]), f"trial {trial.number}")


def waiting(study: optuna.Study) -> int:
    """Queued trials that have not begun."""
    return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def waiting_recipes(study: optuna.Study) -> int:
    """Queued trials of known recipes that have not begun."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return sum(RECIPE in trial.user_attrs for trial in waiting)


def difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Where two configurations differ first, in words."""
    name = next(key for key in sorted({*stored, *wanted}) if stored.get(key) != wanted.get(key))
    return f"its {name.replace('_', ' ')} was {stored.get(name)}, now it is {wanted.get(name)}"
