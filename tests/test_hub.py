"""Policies go to the Hub and come back, through the real client and a server of our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

import autotune
from autotune.errors import InputError
from autotune.hub import card
from autotune.policy import Policy

from .strategies import EXAMPLES

SOURCE = Path(autotune.__file__).parents[1]
MEASURED = EXAMPLES[1]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(ThreadingHTTPServer):
    """As much of the Hub as creating a repository, committing small files and reading them takes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.files: dict[str, bytes] = {}
        self.created: dict[str, Any] = {}
        self.message = ""
        self.token: str | None = "secret"

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
            name = f"{self.server.created['organization']}/{self.server.created['name']}"
            return self._json({"url": f"{self.server.address}/{name}"})
        if self.path == "/api/validate-yaml":
            assert json.loads(body)["content"].startswith("---\nlibrary_name: diffusers\n")
            return self._json({"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": file, "uploadMode": "regular", "shouldIgnore": False} for file in files]
            return self._json({"files": modes})
        assert self.path == "/api/models/user/repo/commit/main", self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                self.server.message = line["value"]["summary"]
            else:
                self.server.files[line["value"]["path"]] = b64decode(line["value"]["content"])
        return self._json({"commitUrl": f"{self.server.address}/user/repo/commit/{COMMIT}", "commitOid": COMMIT})

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


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def with_hub(hub: Hub, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run a script whose Hub is ours, in ``folder``; the client reads its settings when it is imported."""
    settings = {"HF_ENDPOINT": hub.address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf"), "HF_TOKEN": ""}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=os.environ | settings | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_policy_comes_back_from_the_hub_as_it_went(hub: Hub, tmp_path: Path) -> None:
    MEASURED.save(tmp_path / "policy.json")
    script = (
        "import sys, autotune\n"
        "policy = autotune.load_policy('policy.json')\n"
        "print(policy.push_to_hub('user/repo', token='secret', private=True))\n"
        "assert autotune.load_policy('user/repo').key == policy.key\n"
        "assert 'torch' not in sys.modules"
    )
    process = with_hub(hub, tmp_path, script)
    assert process.returncode == 0, process.stderr
    assert process.stdout.strip() == f"{hub.address}/user/repo/commit/{COMMIT}"
    assert (hub.created["name"], hub.created["organization"]) == ("repo", "user")
    assert hub.created.get("private") or hub.created.get("visibility") == "private"
    assert hub.message == f"Policy {MEASURED.id}"
    assert hub.files["policy.json"] == (tmp_path / "policy.json").read_bytes()
    assert hub.files["README.md"].decode() == card(MEASURED, "user/repo")


def test_a_readme_that_is_there_stays(hub: Hub, tmp_path: Path) -> None:
    hub.files["README.md"] = b"written by hand"
    script = (
        "import autotune\n"
        "policy = autotune.Policy(steps=9)\n"
        "policy.push_to_hub('user/repo', token='secret', filename='fast.json', commit_message='Fast')\n"
        "print(autotune.load_policy('user/repo', filename='fast.json').steps)"
    )
    process = with_hub(hub, tmp_path, script)
    assert process.stdout.strip() == "9", process.stderr
    assert set(hub.files) == {"README.md", "fast.json"}
    assert hub.files["README.md"] == b"written by hand"
    assert hub.message == "Fast"


def test_a_token_that_may_not_write_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    script = (
        "import autotune\n"
        "try: autotune.Policy(steps=9).push_to_hub('user/repo', token='another')\n"
        "except autotune.errors.InputError as error: print(error)"
    )
    process = with_hub(hub, tmp_path, script)
    (line,) = process.stdout.splitlines()
    assert line.startswith("user/repo: the Hugging Face Hub did not take the policy (") and "'hf auth login'" in line
    assert not hub.files


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(("a repo",), "give user/repo"), (("user/repo", "policy.txt"), "a policy is a JSON file")],
)
def test_what_no_hub_would_take_is_refused_at_once(arguments: tuple[str, ...], words: str) -> None:
    repo, *filename = arguments
    with pytest.raises(InputError, match=words):
        Policy(steps=4).push_to_hub(repo, **({"filename": filename[0]} if filename else {}))


def test_the_card_says_what_the_records_say_and_how_to_run_it() -> None:
    text = card(MEASURED, "user/repo", "fast.json")
    for words in (
        "StableDiffusionPipeline` at 64x64 pixels",
        "| budget | 40% |",
        "40.0% of the full run, 1,000 GFLOPs",
        "12.5 ms a picture, 1 in a call, on a GPU",
        "200 pictures of 100 prompts",
        "8 plain steps at the same cost | 0.500 (0.250 to 0.750)",
        'autotune.load_policy("user/repo", filename="fast.json")',
    ):
        assert words in text
    bare = card(Policy(steps=4), "user/repo")
    assert "full run" not in bare and 'load_policy("user/repo"))' in bare
