"""A run as its folder and its study tell it, finished or not; nothing here loads a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from autotune.core.errors import InputError, reason_of
from autotune.policy import Policy, read_policy
from autotune.results.finalists import FILE as FINALISTS
from autotune.results.finalists import Finalists, read_finalists
from autotune.results.gallery import Gallery, read_gallery
from autotune.results.search_record import FILE as SEARCH_RECORD
from autotune.results.search_record import SearchRecord, read_search_record
from autotune.results.tradeoff import FILE as TRADEOFF
from autotune.results.tradeoff import Tradeoff, read_tradeoff
from autotune.study.storage import complete, holds_studies, shown
from autotune.study.trials import (
    CONFIG,
    DUPLICATE_OF,
    FAILURE,
    POLICY_ID,
    POLICY_KEY,
    attributes,
    check_format,
    is_feasible,
    policy_of,
    recipe_of,
    sqlite_url,
)

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

STUDY, POLICY = "study.db", "policy.json"

_MOST_NAMED = 6


@dataclass(frozen=True)
class TrialSummary:
    """A trial that ended. Figures are None where it failed, ``failure`` then says why.

    Scores of one that was pruned are of its first pictures only.

    Attributes:
        cost: FLOPs as a share of the full run's.
        loss, low, high: on tuning pictures, with the 95 % interval.
        feasible: whether the error is no larger than was allowed.
    """

    number: int
    id: str
    key: str
    recipe: str | None
    cost: float | None
    latency_ms: float | None
    loss: float | None
    low: float | None
    high: float | None
    duplicate: bool
    pruned: bool
    failure: str | None
    feasible: bool = True


@dataclass(frozen=True, eq=False)
class Run:
    """A run directory.

    Attributes:
        folder: where it is.
        study: what was searched.
        config: what the study is bound to.
        candidates: every trial that ended, in order.
        search_record: the denoiser as data; None where an older release made the run.
        last_round: None until the last round is through.
        policy: what was exported, likewise.
        gallery: held-out pictures, likewise.
        tradeoff: whether fewer or cheaper steps serve the model better; None where nobody asked.
    """

    folder: Path
    study: optuna.Study
    config: Mapping[str, Any]
    candidates: tuple[TrialSummary, ...]
    search_record: SearchRecord | None
    last_round: Finalists | None
    policy: Policy | None
    gallery: Gallery | None
    tradeoff: Tradeoff | None

    @property
    def evaluated(self) -> tuple[TrialSummary, ...]:
        """Those that all pictures were made of, and whose error is no larger than was allowed."""
        return tuple(each for each in self._scored if not each.pruned and each.feasible)

    @property
    def pruned(self) -> tuple[TrialSummary, ...]:
        """Those that others beat on their first pictures, or whose error is too large."""
        return tuple(each for each in self._scored if each.pruned or not each.feasible)

    @property
    def _scored(self) -> tuple[TrialSummary, ...]:
        return tuple(each for each in self.candidates if each.loss is not None and not each.duplicate)

    @property
    def best(self) -> TrialSummary | None:
        """The lowest loss so far."""
        return min(self.evaluated, key=lambda each: (each.loss, each.number), default=None)

    @property
    def noun(self) -> str:
        """What the inputs are: prompts, classes, seeds or anything else."""
        return "prompts" if self.search_record is None else self.search_record.noun

    @property
    def aligned(self) -> bool:
        """Whether alignment with prompts was measured."""
        return self.search_record is None or self.search_record.aligned

    @property
    def erring(self) -> bool:
        """Whether errors were measured, in pairs with exact runs."""
        return self.last_round is not None and all(
            each.quality.error is not None for each in self.last_round.contenders
        )

    @property
    def finished(self) -> bool:
        """Whether a policy was exported."""
        return self.last_round is not None and self.policy is not None

    def policy_of(self, candidate: TrialSummary) -> Policy:
        """What a candidate stands for."""
        return policy_of(self.study.get_trials(deepcopy=False)[candidate.number])


def study_url(folder: Path, storage: str | None = None) -> str:
    """The URL of a run's study: ``storage`` if given, else its SQLite file, else what the run recorded.

    The file is in the run's folder; the folders of several budgets share the one above them.

    Raises:
        InputError: the folder holds no study and says of none.
    """
    if storage is not None:
        return storage
    if (folder / STUDY).is_file():
        return sqlite_url(folder / STUDY)
    record = read_search_record(folder)
    above = folder.resolve().parent / STUDY
    if record is not None and record.storage is None and above.is_file():
        return sqlite_url(above)
    if record is None or record.storage is None:
        raise InputError(
            f"{folder}: holds no {STUDY}; give the folder of a run, or --storage with the URL that the run was given"
        )
    return record.storage


def read_run(folder: Path, storage: str | None = None, study: optuna.Study | None = None) -> Run:
    """Read a run as it is now.

    Args:
        folder: the run's.
        storage: URL of its study, see :func:`study_url`.
        study: the study, where it is open already.

    Raises:
        InputError: there is no run, or a file of it is damaged.
    """
    record = read_search_record(folder)
    if record is None:
        _check_own(folder)
    if study is None:
        study = _open(study_url(folder, storage), record.study if record else None)
    check_format(study)
    policy = folder / POLICY
    return Run(
        folder=folder,
        study=study,
        config=study.user_attrs.get(CONFIG, {}),
        candidates=_candidates(study),
        search_record=record,
        last_round=read_finalists(folder / FINALISTS),
        policy=read_policy(policy) if policy.is_file() else None,
        gallery=read_gallery(folder),
        tradeoff=read_tradeoff(folder / TRADEOFF),
    )


def _check_own(folder: Path) -> None:
    """Refuse the folder above those of several budgets, or of several runs.

    Raises:
        InputError: it names the folders to give.
    """
    found = sorted(str(file.parent) for file in folder.glob(f"*/{SEARCH_RECORD}"))
    if found:
        more = f" or another of {len(found)}" if len(found) > _MOST_NAMED else ""
        raise InputError(
            f"{folder}: holds no run of its own but those of its folders, one for each budget or search; give"
            f" {' or '.join(found[:_MOST_NAMED])}{more}"
        )


def open_existing(url: str) -> RDBStorage:
    """The storage at an SQLAlchemy URL, for looking at: none is made where there is none.

    Raises:
        InputError: there is none, or it cannot be opened.
    """
    from optuna.storages import RDBStorage

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    remedy = "give --storage with the URL that the run was given, password included"
    try:
        if not holds_studies(url):
            raise InputError(f"the storage {shown(url)} holds no study; {remedy}")
        return RDBStorage(complete(url))
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the storage {shown(url)} cannot be opened ({reason_of(error)}); {remedy}") from error
    finally:
        optuna.logging.set_verbosity(before)


def _open(url: str, name: str | None) -> optuna.Study:
    storage = open_existing(url)
    names = [study.study_name for study in storage.get_all_studies()]
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        of_run = f"no study {name!r}" if name else f"{len(names)} studies, and the folder does not say which"
        raise InputError(f"the storage {shown(url)} holds {of_run}; give --storage with the URL that the run was given")
    return optuna.load_study(study_name=name, storage=storage)


def _candidates(study: optuna.Study) -> tuple[TrialSummary, ...]:
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    found = []
    for trial in trials:
        given = attributes(trial)
        complete = trial.state is not TrialState.FAIL
        # Trials that an interrupt cut off have no reason, and are queued again.
        if not complete and FAILURE not in given:
            continue
        found.append(
            TrialSummary(
                number=trial.number,
                id=given.get(POLICY_ID, f"trial {trial.number}"),
                key=given.get(POLICY_KEY, ""),
                recipe=recipe_of(given),
                cost=given.get("relative_cost"),
                latency_ms=given.get("latency_ms"),
                loss=trial.value if complete else None,
                low=given.get("loss_low"),
                high=given.get("loss_high"),
                duplicate=DUPLICATE_OF in given,
                pruned=trial.state is TrialState.PRUNED,
                failure=given.get(FAILURE),
                feasible=is_feasible(trial),
            )
        )
    return tuple(found)
