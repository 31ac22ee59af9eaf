"""``postdiff dashboard``: the Optuna dashboard on one run's study and pictures, for this machine alone."""

from __future__ import annotations

import io
import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from autotune.cli.faults import one_sentence
from autotune.core.errors import InputError, PostDiffError
from autotune.core.faults import FileFormatter, during
from autotune.core.naming import TUNER_LOG
from autotune.report.dashboard import publish
from autotune.report.page import render
from autotune.report.run import Run, open_existing, read_run, study_url
from autotune.results.search_record import FILE as SEARCH_RECORD

ARTIFACTS = "artifacts"
REPORT = "/report"
"""Path of the report's page; with several budgets each has one below it."""

_LIBRARY = logging.getLogger("optuna_dashboard")

# A page of a search that still runs reloads itself.
_RELOAD_SECONDS = 10

Environment = dict[str, Any]
Application = Callable[[Environment, Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a page makes dozens of requests."""

    def get_stderr(self) -> Any:
        """Where server and dashboard print the tracebacks of requests that broke."""
        return _ToLog()


class _ToLog(io.StringIO):
    """Logs what is written to it when it is flushed."""

    def flush(self) -> None:
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        if text:
            _LIBRARY.error("%s\n%s", text.strip().rpartition("\n")[2], text)


class _Broken(logging.Handler):
    """Says in a sentence what the dashboard logs with a traceback, and keeps that in a run's log."""

    def __init__(self, log: Path) -> None:
        super().__init__(logging.ERROR)
        self._file = logging.FileHandler(log, encoding="utf-8", delay=True)
        self._file.setFormatter(FileFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._file.handle(record)
        said = " ".join(record.getMessage().split()).rstrip(".")
        print(f"postdiff: a request broke ({said}); its traceback is in {self._file.baseFilename}", file=sys.stderr)

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def _broken_requests_in(log: Path) -> Iterator[None]:
    handler = _Broken(log)
    _LIBRARY.addHandler(handler)
    try:
        yield
    finally:
        _LIBRARY.removeHandler(handler)
        handler.close()


class RunPages:
    """A run beside the dashboard: its note and plots, brought up to date when a page is loaded, and its report.

    Args:
        dashboard: the dashboard's own application.
        runs: the run of every budget, by the path of its report.
        log: gets the tracebacks of requests that broke.

    Raises:
        InputError: a file of a run is damaged.
    """

    def __init__(self, dashboard: Application, runs: dict[str, Run], log: Path) -> None:
        self._dashboard = dashboard
        self._runs = runs
        self._log = log
        self._published: dict[str, tuple[int, int, bool]] = {}
        self._one_at_a_time = threading.Lock()
        self._publish()

    def __call__(self, environ: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request; one that breaks is answered with the sentence that the terminal shows."""
        try:
            with one_sentence("dashboard", self._log):
                return self._answer(environ, start_response)
        except PostDiffError as error:
            print(f"postdiff: {error}", file=sys.stderr)
            start_response("500 Internal Server Error", [("Content-Type", "text/plain; charset=utf-8")])
            return [str(error).encode()]

    def _answer(self, environ: Environment, start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path in self._runs:
            with during("in the report"):
                page = render(self._latest(path), reload_seconds=_RELOAD_SECONDS).encode()
            start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
            return [page]
        if path.startswith("/dashboard"):
            self._publish()
        return self._dashboard(environ, start_response)

    def _publish(self) -> None:
        with self._one_at_a_time, during("while publishing to the dashboard"):
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
    from optuna_dashboard import wsgi

    dashboard = wsgi(open_existing(url), FileSystemArtifactStore(run_dir / ARTIFACTS))
    runs = runs_in(run_dir, storage)
    try:
        server = _Server((host, port), _QuietHandler)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"cannot listen on {host}:{port} ({reason}); choose another --port") from error
    log = run_dir / TUNER_LOG
    with server, one_sentence("dashboard", log), _broken_requests_in(log):
        # Nothing is written into the study before it is clear that it can be shown.
        server.set_app(RunPages(dashboard, runs, log))
        shown = f"[{host}]" if ":" in host else host
        print(f"Dashboard of {run_dir} on http://{shown}:{server.server_port}/ - Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
