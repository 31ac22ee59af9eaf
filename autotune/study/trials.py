"""The Optuna study: created or resumed, bound to one frozen configuration, repaired after interrupts."""

from __future__ import annotations

import copy
import json
import logging
import warnings
from collections.abc import Collection, Container, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import URL

from autotune.core.errors import InputError
from autotune.policy import Policy, policy_from_dict
from autotune.study.candidate import Candidate
from autotune.study.configuration import Configuration, difference, differs
from autotune.study.optuna_internals import live_trial, new_trial, set_state
from autotune.study.storage import holds_studies, open_storage, shown
from search_spaces.earlier import completed

_LOG = logging.getLogger(__name__)

CONFIG = "config"
DUPLICATE_OF = "duplicate_of"
FAILURE = "failure"
RECIPE = "recipe"
REFINES = "refines"
COMBINES = "combines"
RESUMES = "resumes"
POLICY, POLICY_ID, POLICY_KEY = "policy", "policy_id", "policy_key"

DESCRIPTION, RESULTS = "description", "results"
"""Attributes of a trial that hold many in one, since each costs a database a transaction; see :func:`attributes`."""

_FORMAT = "format"
# Of what a study holds; another one cannot be read.
_VERSION = 2

# What a trial was queued with.
_ORIGIN = (RECIPE, COMBINES, REFINES, RESUMES)
# The same, as Optuna notes it, and how often the trial was tried.
_ASKED, _HISTORY = "fixed_params", ("failed_trial", "retry_history")

# A candidate that ends every worker is left alone after the second.
_RETRIES = 1


def sqlite_url(path: Path) -> str:
    """The SQLAlchemy URL of an SQLite file, whatever characters its path holds.

    Example:
        >>> sqlite_url(Path("/runs/50%?.db"))
        'sqlite:////runs/50%25%3F.db'
    """
    return URL.create("sqlite", database=str(path.resolve())).render_as_string()


def check_studies(url: str, configurations: Mapping[str, Configuration]) -> set[str]:
    """The names of those studies that are there already, of which each can be resumed. Nothing is written.

    Args:
        url: As for :func:`open_study`.
        configurations: By the studies' names.

    Raises:
        InputError: one of them exists with another configuration, or the storage cannot be opened.
    """
    if not holds_studies(url):
        return set()
    storage = open_storage(url)
    present = {study.study_name for study in storage.get_all_studies()} & configurations.keys()
    for name in sorted(present):
        study = optuna.load_study(study_name=name, storage=storage)
        _check_resumable(study, configurations[name].document(), url)
    return present


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
    wanted = configuration.document()
    _check_resumable(study, wanted, url)
    if CONFIG not in study.user_attrs:
        study.set_user_attr(_FORMAT, _VERSION)
        study.set_user_attr(CONFIG, wanted)
    return study


def _check_resumable(study: optuna.Study, wanted: Mapping[str, Any], url: str) -> None:
    """Raise InputError unless a search with the configuration ``wanted`` may go on in the study."""
    stored = study.user_attrs.get(CONFIG)
    if stored is None:
        if study.get_trials(deepcopy=False):
            raise InputError(
                f"the study {study.study_name!r} in {shown(url)} was not made by this program; choose another"
                " --study-name"
            )
        return
    check_format(study)
    if differs(stored, wanted):
        raise InputError(
            f"the study {study.study_name!r} cannot be resumed: {difference(stored, wanted)};"
            " repeat the command that made it, or choose another --study-name"
        )


def check_format(study: optuna.Study) -> None:
    """Raise InputError where another version of this program kept its trials in another form."""
    if CONFIG in study.user_attrs and study.user_attrs.get(_FORMAT) != _VERSION:
        raise InputError(
            f"the study {study.study_name!r} was made by another version of this program, which kept trials in another"
            " form; repeat the search under another --study-name, or use that version"
        )


def put_back(study: optuna.Study, number: int) -> None:
    """Fail a RUNNING trial without counting it, and queue it again as it was before it began, in its old place."""
    trial = _with_number(study, number)
    if trial.state is not TrialState.RUNNING:
        return
    study.tell(number, state=TrialState.FAIL)
    if _asked(trial) and FAILURE not in trial.user_attrs:
        study.enqueue_trial(_asked(trial), user_attrs={RESUMES: number, **_origin(trial)})


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
    # Of other trials the policy follows from the knobs.
    return kept | refining(kept[REFINES], attributes(trial)[POLICY]) if REFINES in kept else kept


def refining(number: int, policy: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a trial to come, whose policy was derived from trial ``number``'s."""
    return {REFINES: number, DESCRIPTION: {POLICY: policy}}


def _with_number(study: optuna.Study, number: int) -> FrozenTrial:
    return next(trial for trial in study.get_trials(deepcopy=False) if trial.number == number)


def enqueue_recipes(study: optuna.Study, recipes: Sequence[tuple[str, Mapping[str, int]]]) -> None:
    """Queue named settings that the study does not have yet, in order; one that lacks later knobs has them as well."""
    trials = study.get_trials(deepcopy=False)
    # One that was cut off may have been left alone by those who found it: here it gets another chance.
    lost = {trial.user_attrs.get(RECIPE) for trial in trials if _cut_off(trial)}
    lost -= {trial.user_attrs.get(RECIPE) for trial in trials if not _cut_off(trial)}
    for name, values in recipes:
        known = (
            trial.system_attrs.get(_ASKED, trial.params) for trial in trials if trial.user_attrs.get(RECIPE) == name
        )
        if name in lost or not any(completed(each, values) == values for each in known):
            study.enqueue_trial(dict(values), user_attrs={RECIPE: name}, skip_if_exists=name not in lost)


def requeue_lost_recipes(study: optuna.Study, inherited: Collection[int]) -> frozenset[int]:
    """Queue recipes again whose workers died before this process began, where they are retried by nobody else.

    A recipe may have been cut off twice by then, which is as often as one is retried while a run lasts.

    Args:
        study: Holds them.
        inherited: Numbers of the trials that were running when this process began.

    Returns:
        Those of them that may still be running.
    """
    trials = study.get_trials(deepcopy=False)

    def setting(trial: FrozenTrial) -> tuple[str, str]:
        return trial.user_attrs[RECIPE], json.dumps(_asked(trial), sort_keys=True)

    recipes = [trial for trial in trials if RECIPE in trial.user_attrs]
    known = {setting(trial) for trial in recipes if not _cut_off(trial)}
    for trial in recipes:
        if trial.number in inherited and _cut_off(trial) and setting(trial) not in known:
            known.add(setting(trial))
            study.enqueue_trial(_asked(trial), user_attrs={RECIPE: trial.user_attrs[RECIPE]})
    return frozenset(
        trial.number for trial in trials if trial.number in inherited and trial.state is TrialState.RUNNING
    )


class Trials(Protocol):
    """A study, or what it held at one moment."""

    def get_trials(self, deepcopy: bool = ..., states: Container[TrialState] | None = ...) -> list[FrozenTrial]: ...


class Snapshot:
    """What a study holds now, for several questions that one look at the storage answers."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        self._trials = trials

    @staticmethod
    def of(study: optuna.Study) -> Snapshot:
        return Snapshot(study.get_trials(deepcopy=False))

    def get_trials(self, deepcopy: bool = False, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]

    def ended(self, trial: optuna.Trial, state: TrialState, loss: float, given: Mapping[str, Any]) -> Snapshot:
        """The same once a running trial of it has ended, which saves another look."""
        (running,) = (each for each in self._trials if each.number == trial.number)
        ended = copy.copy(running)
        ended.state, ended.values, ended.user_attrs = state, [loss], {**running.user_attrs, **given}
        return Snapshot([ended if each is running else each for each in self._trials])


def begin(study: optuna.Study, candidate: Candidate) -> optuna.Trial:
    """Make a running trial of a candidate in one transaction.

    Its knobs are not among its parameters yet, but would be should it be retried.
    """
    system_attrs = {_ASKED: dict(candidate.values), **candidate.system_attrs}
    template = create_trial(state=TrialState.RUNNING, user_attrs=dict(candidate.user_attrs), system_attrs=system_attrs)
    return new_trial(study, template)


def claim(study: optuna.Study, queued: Sequence[FrozenTrial]) -> tuple[optuna.Trial, dict[str, Any]] | None:
    """The first of the queued trials that no other worker takes at the same moment, and the knob values it asks for."""
    for trial in queued:
        try:
            if set_state(study, trial, TrialState.RUNNING):
                return live_trial(study, trial), _asked(trial)
        except UpdateFinishedTrialError:
            _LOG.debug("trial %d has been taken and has ended", trial.number)
    return None


def end(study: optuna.Study, trial: optuna.Trial, state: TrialState, loss: float | None = None) -> None:
    """As ``study.tell``, which reads the trial first."""
    set_state(study, trial, state, loss)


def attributes(trial: optuna.Trial | FrozenTrial) -> dict[str, Any]:
    """All that a trial says of its candidate: what it is and, where it came to that, what it scored."""
    given = trial.user_attrs
    return {**given, **given.get(DESCRIPTION, {}), **given.get(RESULTS, {})}


def recipe_of(given: Mapping[str, Any]) -> str | None:
    """The known recipe, or those together, that a trial of these attributes tries."""
    return given.get(RECIPE) or " + ".join(given.get(COMBINES, ())) or None


def is_repetition(trial: FrozenTrial) -> bool:
    """Whether the trial computed what another had."""
    return DUPLICATE_OF in trial.user_attrs.get(RESULTS, {})


def is_feasible(trial: FrozenTrial) -> bool:
    """Whether no constraint of the trial is violated: its error is not above the ceiling, where there is one."""
    return all(value <= 0 for value in trial.constraints.values())


def finished(study: Trials) -> list[FrozenTrial]:
    """Trials that ran to an end, good or bad. Failed ones without a reason were cut off by an interrupt."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    return [trial for trial in trials if not _cut_off(trial)]


def _cut_off(trial: FrozenTrial) -> bool:
    return trial.state is TrialState.FAIL and FAILURE not in trial.user_attrs


def evaluated(study: Trials) -> list[FrozenTrial]:
    """Finished trials that cost an evaluation: all but duplicates of earlier ones."""
    return [trial for trial in finished(study) if not is_repetition(trial)]


def ranked(study: Trials) -> list[FrozenTrial]:
    """Feasible trials with a score of all pictures, one for every policy, best first."""
    complete = [trial for trial in evaluated(study) if trial.state is TrialState.COMPLETE and is_feasible(trial)]
    return sorted(complete, key=lambda trial: (trial.values[0], trial.number))


def policy_of(trial: FrozenTrial) -> Policy:
    """The policy that a trial evaluated."""
    return policy_from_dict(attributes(trial)[POLICY], f"trial {trial.number}")


def waiting(study: Trials) -> list[FrozenTrial]:
    """Queued trials that have not begun, in the order in which they are to; those that were put back come first."""
    queued = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return sorted(queued, key=lambda trial: (trial.user_attrs.get(RESUMES, trial.number), trial.number))


def waiting_recipes(study: Trials) -> int:
    """Queued trials of known recipes that have not begun."""
    return sum(RECIPE in trial.user_attrs for trial in waiting(study))
