"""A server of the README, started as printed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import autotune

SOURCE = Path(autotune.__file__).parents[1]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(SOURCE), "HF_HUB_OFFLINE": "1"}


@contextmanager
def serving(folder: Path, words: list[str], more: Mapping[str, str] = {}) -> Iterator[int]:
    """The port of a server, started as printed but for the port, with ``more`` in its environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words[words.index("--port") + 1] = str(port)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *words], cwd=folder, env=environment() | dict(more), stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + 240
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            with socket.socket() as trying:
                if trying.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=30)
