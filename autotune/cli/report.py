"""``postdiff report``: the page of a run, once or whenever the run has got further."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from autotune.cli.faults import one_sentence
from autotune.core.faults import during
from autotune.core.naming import TUNER_LOG
from autotune.report.facts import document
from autotune.report.importance import importance_of
from autotune.report.page import FILE, write_report
from autotune.report.run import POLICY, Run, read_run
from autotune.results.finalists import FILE as FINALISTS

POLL_SECONDS = 5.0


def run_report(
    folder: Path,
    *,
    storage: str | None = None,
    out: Path | None = None,
    watch: bool = False,
    as_json: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Write a run's page and say what is in it.

    Args:
        folder: the run's.
        storage: URL of its study; see :func:`autotune.report.run.study_url`.
        out: the page's file; by default ``report.html`` in the run's folder.
        watch: rewrite it whenever the run has got further, until it has exported its policy or Ctrl-C.
        as_json: print the facts as one line of JSON for every page.
        wait: sleeps for some seconds.

    Raises:
        InputError: there is no run, or a file of it is damaged.
    """
    # A folder that is not there gets no log.
    with one_sentence("report", folder / TUNER_LOG if folder.is_dir() else None):
        _run(folder, out or folder / FILE, storage=storage, watch=watch, as_json=as_json, wait=wait)


def _run(
    folder: Path, path: Path, *, storage: str | None, watch: bool, as_json: bool, wait: Callable[[float], None]
) -> None:
    with during("while reading the run"):
        run = read_run(folder, storage)
    _write(run, path, watch=watch, as_json=as_json)
    if not watch:
        return
    try:
        while not run.finished:
            wait(POLL_SECONDS)
            before, run = _state(run), read_run(folder, study=run.study)
            if _state(run) != before:
                _write(run, path, watch=True, as_json=as_json)
    except KeyboardInterrupt:
        pass


def _write(run: Run, path: Path, *, watch: bool, as_json: bool) -> None:
    with during("in the report"):
        write_report(run, path, reload_seconds=round(2 * POLL_SECONDS) if watch else None)
    if as_json:
        print(json.dumps({"report": str(path)} | document(run, importance_of(run))), flush=True)
        return
    count = len(run.evaluated)
    state = "finished" if run.finished else "not finished"
    print(f"{path}: {count} candidate{'s' * (count != 1)}, {state}", flush=True)


def _state(run: Run) -> tuple[object, ...]:
    """What a page shows changes with this."""
    files = [run.folder / name for name in (FINALISTS, POLICY)]
    return (len(run.candidates), run.finished, *(path.stat().st_mtime_ns for path in files if path.is_file()))
