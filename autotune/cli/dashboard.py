"""``postdiff dashboard``: the Optuna dashboard on one run's study and pictures, for this machine alone."""

from __future__ import annotations

from pathlib import Path
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from autotune.errors import InputError
from autotune.report.run import study_url

ARTIFACTS = "artifacts"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: a page makes dozens of requests."""


def serve(run_dir: Path, storage: str | None, host: str, port: int) -> None:
    """Serve the dashboard until interrupted; port 0 takes a free one. Prints its address.

    Raises:
        InputError: no study, or a host and port that cannot be listened on.
    """
    url = study_url(run_dir, storage)

    from optuna.artifacts import FileSystemArtifactStore
    from optuna.storages import RDBStorage
    from optuna_dashboard import wsgi

    app = wsgi(RDBStorage(url), FileSystemArtifactStore(run_dir / ARTIFACTS))
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
