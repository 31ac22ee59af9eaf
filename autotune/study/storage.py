"""The database that studies are kept in: opened for many workers, and waited for when it is away for a while."""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
import warnings
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import optuna
import tenacity
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import bindparam, create_engine, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError

from autotune.core.errors import InputError, Unavailable, reason_of
from autotune.core.interrupts import checkpoint, pause
from autotune.study.optuna_internals import TransactionalStorage, id_of

_LOG = logging.getLogger(__name__)

PATIENCE = 300.0
"""Seconds that a call waits for a database which does not answer."""

HEARTBEAT = "POSTDIFF_HEARTBEAT"
"""Environment variable: seconds between two signs of life of a running trial, the same for all workers."""

_HEARTBEAT_SECONDS = 20
# A worker that has missed as many is dead.
_MISSED = 3

# SQLite lets a writer wait for readers such as a dashboard; by default it gives up after five seconds.
_BUSY_SECONDS = 30
# Servers, and what lies between, drop connections that were idle for minutes.
_STALE_SECONDS = 120
_OPENINGS = 8
_LONGEST_PAUSE = 5.0


class PatientStorage(TransactionalStorage):
    """Optuna's database storage; a call that fails because the server is away is made again until it is back.

    Raises:
        Unavailable: from any call, when the database has not answered for :data:`PATIENCE` seconds or, in a file,
            cannot be written to.
    """

    def __init__(self, backend: RDBStorage) -> None:
        super().__init__(backend)
        self.shown_url = shown(str(backend.url))
        self._away_until = -float("inf")
        self._made: FrozenTrial | None = None

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial that this process has just made is not read again."""
        made, self._made = self._made, None
        if made is not None and id_of(made) == trial_id:
            return made
        return super().get_trial(trial_id)

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        trial_id = super().create_new_trial(study_id, template_trial)
        self._made = self.cached(study_id, trial_id)
        return trial_id

    @property
    def interval(self) -> float:
        """Seconds between two signs of life of a trial."""
        return float(_heartbeat_seconds())

    @property
    def grace_period(self) -> float:
        """Seconds without a sign of life after which a trial's worker counts as dead."""
        return _MISSED * self.interval

    def was_away(self) -> None:
        """Note that the database does not answer, so that nobody could give a sign of life."""
        self._away_until = time.monotonic()

    @property
    def heard_all(self) -> bool:
        """Whether everybody alive has had the time to give a sign of life since the database was last away."""
        return time.monotonic() - self._away_until > self.grace_period

    def silent(self, trial_ids: Collection[int]) -> set[int]:
        """Those of ``trial_ids`` that have never given a sign of life."""
        if not trial_ids:
            return set()
        query = text("SELECT trial_id FROM trial_heartbeats WHERE trial_id IN :ids").bindparams(
            bindparam("ids", expanding=True)
        )

        def read(storage: PatientStorage) -> set[int]:
            with self.engine.connect() as connection:
                return set(trial_ids) - {row[0] for row in connection.execute(query, {"ids": list(trial_ids)})}

        return set(_patient(read)(self))


def holds_studies(url: str) -> bool:
    """Whether there is a database with studies at an SQLAlchemy URL; none is made.

    Raises:
        InputError: it cannot be opened.
    """
    file = sqlite_file(url)
    if file is not None and not file.is_file():
        return False
    try:
        engine = create_engine(url)
        try:
            return bool(inspect(engine).has_table("studies"))
        finally:
            engine.dispose()
    except Exception as error:
        raise _cannot_open(url, error) from error


def sqlite_file(url: str) -> Path | None:
    """The file that an SQLite URL names as a path; None for other databases, and for what is in memory."""
    parsed = make_url(url)
    named = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return Path(str(parsed.database)) if named and "uri" not in parsed.query else None


def open_storage(url: str, when_dead: Callable[[optuna.Study, FrozenTrial], None] | None = None) -> PatientStorage:
    """The storage at an SQLAlchemy URL.

    Args:
        url: Of a PostgreSQL, MySQL or SQLite database.
        when_dead: What becomes of a trial after it was failed because its worker died.

    Raises:
        InputError: it cannot be opened.
    """
    # Asking before every transaction whether the connection still lives would take as long as a short one does.
    arguments: dict[str, Any] = {"pool_pre_ping": False, "pool_recycle": _STALE_SECONDS}
    if url.startswith("sqlite"):
        arguments = {"connect_args": {"timeout": _BUSY_SECONDS}}
    seconds = _heartbeat_seconds()

    # Of several that open an empty database at once, all but one find that its tables have just been made.
    @tenacity.retry(
        retry=tenacity.retry_if_exception(_made_by_others),
        wait=tenacity.wait_random(0.1, 1),
        stop=tenacity.stop_after_attempt(_OPENINGS),
        reraise=True,
    )
    def opened() -> RDBStorage:
        return RDBStorage(
            complete(url),
            engine_kwargs=dict(arguments),
            heartbeat_interval=seconds,
            grace_period=_MISSED * seconds,
            heartbeat_stale_trial_callback=when_dead,
        )

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return PatientStorage(opened())
    except Exception as error:
        raise _cannot_open(url, error) from error


def _cannot_open(url: str, error: Exception) -> InputError:
    # Drivers raise what they like.
    return InputError(f"the storage {shown(url)} cannot be opened ({_reason(error)}); give another --storage")


def _made_by_others(error: BaseException) -> bool:
    """Whether a table was not there a moment ago, and is now."""
    return isinstance(error, IntegrityError) or (isinstance(error, DBAPIError) and "already exists" in str(error))


def shown(url: str) -> str:
    """The URL without its password."""
    return make_url(url).render_as_string(hide_password=True)


def complete(url: str) -> str:
    """The URL with its password, and with everything escaped: Optuna would take braces in a path for its own."""
    return make_url(url).render_as_string(hide_password=False)


def _heartbeat_seconds() -> int:
    given = os.environ.get(HEARTBEAT, str(_HEARTBEAT_SECONDS))
    if not given.isdecimal() or not int(given):
        raise InputError(f"{HEARTBEAT} is {given!r}; give a whole number of seconds")
    return int(given)


def _patient(method: Callable[..., Any]) -> Callable[..., Any]:
    """``method`` of the storage, made again while the database is away."""

    @functools.wraps(method)
    def call(storage: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        def wait(state: tenacity.RetryCallState) -> None:
            assert state.outcome is not None
            if state.attempt_number == 1:
                _LOG.warning(
                    "the storage %s does not answer (%s); waiting for it, %d minutes at most",
                    storage.shown_url,
                    _reason(state.outcome.exception()),
                    PATIENCE / 60,
                )
            storage.was_away()

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passes),
            wait=tenacity.wait_random_exponential(0.2, max=_LONGEST_PAUSE),
            stop=tenacity.stop_after_delay(PATIENCE),
            sleep=_sleep,
            before_sleep=wait,
            reraise=True,
        )
        try:
            for attempt in attempts:
                with attempt:
                    result = method(storage, *args, **kwargs)
        except UpdateFinishedTrialError:
            # The first attempt may have got through, only its answer not.
            final = kwargs.get("state") or (args[1] if len(args) > 1 else None)
            if attempts.statistics["attempt_number"] > 1 and isinstance(final, TrialState):
                if storage.get_trial(args[0]).state is final:
                    return True
            raise
        except Exception as error:
            if _is_outage(error):
                raise Unavailable(
                    f"the storage {storage.shown_url} cannot be used ({_reason(error)}); nothing recorded is lost,"
                    " repeat the same command when it works again"
                ) from error
            raise
        if attempts.statistics["attempt_number"] > 1:
            _LOG.warning("the storage answers again after %.0f s", attempts.statistics["delay_since_first_attempt"])
        return result

    return call


def _sleep(seconds: float) -> None:
    if threading.current_thread() is threading.main_thread():
        pause(seconds)
        checkpoint()
    else:
        time.sleep(seconds)


def _is_outage(error: BaseException | None) -> bool:
    """Whether the database itself is what went wrong: it is away, or its disk full."""
    return _cause(error) is not None


def _passes(error: BaseException) -> bool:
    """Whether waiting may help: a server comes back, a lock is let go of; a full disk stays full."""
    cause = _cause(error)
    if cause is None:
        return False
    in_a_file = "sqlite" in type(getattr(cause, "orig", None)).__module__
    return not in_a_file or "locked" in str(cause)


def _cause(error: BaseException | None) -> DBAPIError | None:
    """What the database's driver said; Optuna and SQLAlchemy put errors of their own in front of it."""
    while error is not None:
        if isinstance(error, OperationalError | InterfaceError):
            return error
        if isinstance(error, DBAPIError) and error.connection_invalidated:
            return error
        if not isinstance(error, StorageInternalError | SQLAlchemyError):
            return None
        error = error.__cause__ or error.__context__
    return None


def _reason(error: BaseException | None) -> str:
    cause = _cause(error)
    original = error if cause is None else cause.orig or cause
    return "no reason given" if original is None else reason_of(original)


# All that Optuna and its dashboard ask of a storage, and the signs of life.
_OWN = {"remove_session", "get_heartbeat_interval", "get_heartbeat_stale_trial_callback", "get_failed_trial_callback"}
for _name in [name for name in dir(BaseStorage) if not name.startswith("_") and name not in _OWN] + [
    "_get_stale_trial_ids"
]:
    setattr(PatientStorage, _name, _patient(getattr(PatientStorage, _name)))
