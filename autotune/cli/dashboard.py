"""``postdiff dashboard``: the Optuna dashboard on one run's study and pictures, for this machine alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from autotune.core.errors import InputError
from autotune.report.dashboard import publish
from autotune.report.page import render
from autotune.report.run import Run, read_run, study_url
from autotune.results.search_record import FILE as SEARCH_RECORD

ARTIFACTS = "artifacts"
REPORT = "/report"
"""Path of the report's page; with several budgets each has one below it."""

# A page of a search that still runs loads itself anew.
_RELOAD_SECONDS = 10

Environment = dict[str, Any]
Application = Callable[[Environment, Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a page makes dozens of requests."""


class RunPages:
    """A run beside the dashboard: its note and plots, brought up to date when a page is loaded, and its report.

    Args:
        dashboard: the dashboard's own application.
        runs: the run of every budget, by the path of its report.

    Raises:
        InputError: a file of a run is damaged.
    """

    def __init__(self, dashboard: Application, runs: dict[str, Run]) -> None:
        self._dashboard = dashboard
        self._runs = runs
        self._published: dict[str, tuple[int, int, bool]] = {}
        self._one_at_a_time = threading.Lock()
        self._publish()

    def __call__(self, environ: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        path = environ.get("PATH_INFO", "")
        try:
            if path in self._runs:
                page = render(self._latest(path), reload_seconds=_RELOAD_SECONDS).encode()
                start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
                return [page]
            if path.startswith("/dashboard"):
                self._publish()
        except InputError as error:
            print(f"postdiff: {error}", file=sys.stderr)
            start_response("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
            return [str(error).encode()]
        return self._dashboard(environ, start_response)

    def _publish(self) -> None:
        with self._one_at_a_time:
            for path in self._runs:
                run = self._latest(path)
                state = (len(run.study.get_trials(deepcopy=False)), len(run.candidates), run.finished)
                if self._published.get(path) != state:
                    publish(run, path)
                    self._published[path] = state

    def _latest(self, path: str) -> Run:
        run = self._runs[path]
        return read_run(run.folder, study=run.study)


def runs_in(run_dir: Path, storage: str | None) -> dict[str, Run]:
    """The runs in a folder by the path of their report: one, or one of every budget; none of an older release.

    Raises:
        InputError: a file of a run is damaged.
    """
    if (run_dir / SEARCH_RECORD).is_file():
        return {REPORT: read_run(run_dir, storage)}
    folders = sorted(path.parent for path in run_dir.glob(f"*/{SEARCH_RECORD}"))
    return {f"{REPORT}/{folder.name}": read_run(folder, storage) for folder in folders}


def serve(run_dir: Path, storage: str | None, host: str, port: int) -> None:
    """Serve the dashboard until interrupted; port 0 takes a free one. Prints its address.

    Raises:
        InputError: no study, or a host and port that cannot be listened on.
    """
    url = study_url(run_dir, storage)

    from optuna.artifacts import FileSystemArtifactStore
    from optuna.storages import RDBStorage
    from optuna_dashboard import wsgi

    dashboard = wsgi(RDBStorage(url), FileSystemArtifactStore(run_dir / ARTIFACTS))
    app = RunPages(dashboard, runs_in(run_dir, storage))
    try:
        server = make_server(host, port, app, server_class=_Server, handler_class=_QuietHandler)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot listen on {host}:{port} ({reason}); choose another --port") from error
    with server:
        shown = f"[{host}]" if ":" in host else host
        print(f"Dashboard of {run_dir} on http://{shown}:{server.server_port}/ - Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
