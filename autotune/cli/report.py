"""``postdiff report``: the page of a run, once or whenever the run has got further."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

from autotune.cli.faults import one_sentence
from autotune.core.faults import during
from autotune.core.naming import TUNER_LOG
from autotune.policy import read_set
from autotune.report.facts import document
from autotune.report.importance import importance_of
from autotune.report.page import FILE, write_report
from autotune.report.run import POLICY, Run, read_run
from autotune.report.tiers import tier_lines, tiers_document
from autotune.report.tiers_page import FILE as TIERS_PAGE
from autotune.report.tiers_page import has_tiers, write_tiers_page
from autotune.results.finalists import FILE as FINALISTS
from autotune.results.search_record import FILE as SEARCH_RECORD
from autotune.results.tiers import POLICIES

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
        _run(folder, out, storage=storage, watch=watch, as_json=as_json, wait=wait)


def _run(
    folder: Path, page: Path | None, *, storage: str | None, watch: bool, as_json: bool, wait: Callable[[float], None]
) -> None:
    path = page or folder / FILE
    if has_tiers(folder):
        # The folder above those of its budgets has no run of its own; that of an only budget has one.
        alone = not (folder / SEARCH_RECORD).is_file()
        _write_tiers(folder, page if alone and page is not None else folder / TIERS_PAGE, as_json=as_json)
        if alone:
            return
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


def _write_tiers(folder: Path, path: Path, *, as_json: bool) -> None:
    with during("in the page of the tiers"):
        write_tiers_page(folder, path)
    lines = tier_lines(read_set(folder / POLICIES))
    if as_json:
        print(json.dumps({"report": str(path), "tiers": tiers_document(lines)}), flush=True)
        return
    print(f"{path}: {len(lines) - 1} tier{'s' * (len(lines) != 2)} and the full run", flush=True)


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
