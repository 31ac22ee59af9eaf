"""Optuna's own log and warnings, out of the way of the progress that is shown."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import optuna


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna logs a line for every trial, which the progress display says better.

    It also warns of recipes beyond a narrowed range, of which fewer steps are meant to be one, and where trials are
    asked for outside of its own loop, for then somebody else must give their signs of life, as
    :mod:`autotune.study.heartbeat` does.
    """
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Fixed parameter")
            warnings.filterwarnings("ignore", message="Heartbeat of storage")
            yield
    finally:
        optuna.logging.set_verbosity(before)
