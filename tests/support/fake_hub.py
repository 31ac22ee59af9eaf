"""As much of the Hugging Face Hub as creating a repository, committing small files and reading them takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import autotune

SOURCE = Path(autotune.__file__).parents[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """Its one repository takes its name from whoever creates it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.files: dict[str, bytes] = {}
        self.created: dict[str, Any] = {}
        self.message = ""
        self.repository = ""
        self.token = "secret"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Requests(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Bearer {self.server.token}":
            return self._answer(401, b'{"error": "Invalid username or password."}')
        if self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self.server.repository = f"{self.server.created['organization']}/{self.server.created['name']}"
            return self._json({"url": f"{self.server.address}/{self.server.repository}"})
        if self.path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\nlibrary_name: diffusers\n")
            return self._json({"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": file, "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self._json({"files": modes})
        assert self.path == f"/api/models/{self.server.repository}/commit/main", self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.server.message = line["value"]["summary"]
            else:
                self.server.files[line["value"]["path"]] = b64decode(line["value"]["content"])
        commit = f"{self.server.address}/{self.server.repository}/commit/{COMMIT}"
        return self._json({"commitUrl": commit, "commitOid": COMMIT})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        file = self.path.rpartition("/")[2]
        if file not in self.server.files:
            return self._answer(404, b"", **{"X-Error-Code": "EntryNotFound"})
        return self._answer(200, self.server.files[file], ETag=f'"{file}"', **{"X-Repo-Commit": COMMIT})

    def _json(self, document: Any) -> None:
        self._answer(200, json.dumps(document).encode())

    def _answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def running() -> Iterator[Hub]:
    with Hub() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def with_hub(hub: Hub, folder: Path, script: str, token: str = "") -> subprocess.CompletedProcess[str]:
    """Run a script whose Hub is ours, in ``folder``; the client reads its settings when it is imported."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf"), "HF_TOKEN": token}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=os.environ | settings | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
