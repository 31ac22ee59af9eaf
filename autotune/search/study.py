"""The Optuna study: created or resumed, bound to one frozen configuration, repaired after interrupts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

from autotune.errors import InputError
from autotune.policy import Policy, policy_from_dict

CONFIG = "config"
DUPLICATE_OF = "duplicate_of"
FAILURE = "failure"
RECIPE = "recipe"
REFINES = "refines"
POLICY, POLICY_ID, POLICY_KEY = "policy", "policy_id", "policy_key"

# What a trial was queued with.
_ORIGIN = (RECIPE, REFINES, POLICY)

_BUSY_SECONDS = 30


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
    """Create the study ``name``, or resume it where it was left.

    Args:
        name: Its name in the storage.
        url: An SQLAlchemy URL, see :func:`sqlite_url`.
        configuration: What the study is bound to.

    Raises:
        InputError: the study exists with another configuration, or the storage cannot be opened.
    """
    try:
        study = optuna.create_study(study_name=name, storage=_storage(url), direction="minimize", load_if_exists=True)
    except Exception as error:
        raise InputError(
            f"the storage {url} cannot be opened ({_first_line(error)}); give another --storage"
        ) from error
    stored = study.user_attrs.get(CONFIG)
    wanted = configuration.document()
    if stored is None:
        if study.get_trials(deepcopy=False):
            raise InputError(f"the study {name!r} in {url} was not made by this program; choose another --study-name")
        study.set_user_attr(CONFIG, wanted)
    elif stored != wanted:
        raise InputError(
            f"the study {name!r} cannot be resumed: {_difference(stored, wanted)};"
            " repeat the command that made it, or choose another --study-name"
        )
    release_interrupted(study)
    return study


def release_interrupted(study: optuna.Study) -> None:
    """Fail trials that an interrupted run left RUNNING, and queue their parameters again."""
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        asked = trial.system_attrs.get("fixed_params", {}) | trial.params
        if asked and FAILURE not in trial.user_attrs:
            kept = {name: trial.user_attrs[name] for name in _ORIGIN if name in trial.user_attrs}
            if REFINES not in kept:
                # Of other trials the policy follows from the knobs.
                kept.pop(POLICY, None)
            study.enqueue_trial(asked, user_attrs=kept)


def enqueue_recipes(study: optuna.Study, recipes: Sequence[tuple[str, Mapping[str, int]]]) -> None:
    """Queue named settings that the study does not have yet, in order."""
    for name, values in recipes:
        study.enqueue_trial(dict(values), user_attrs={RECIPE: name}, skip_if_exists=True)


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that ran to an end, good or bad. Failed ones without a reason were cut off by an interrupt."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in trials if trial.state is not TrialState.FAIL or FAILURE in trial.user_attrs]


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


def waiting_recipes(study: optuna.Study) -> int:
    """Queued trials of known recipes that have not begun."""
    waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return sum(RECIPE in trial.user_attrs for trial in waiting)


def _storage(url: str) -> RDBStorage:
    # SQLite lets a writer wait for readers such as a dashboard; by default it gives up after five seconds.
    sqlite = url.startswith("sqlite")
    return RDBStorage(
        url, engine_kwargs={"connect_args": {"timeout": _BUSY_SECONDS}} if sqlite else {"pool_pre_ping": True}
    )


def _difference(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    name = next(key for key in sorted({*stored, *wanted}) if stored.get(key) != wanted.get(key))
    return f"its {name.replace('_', ' ')} was {stored.get(name)}, now it is {wanted.get(name)}"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
