"""What is published installs by itself: sdist, wheel, and the README's first commands, offline, without sources."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

import autotune
from autotune.policy import read_policy
from tests.support.readme import ROOT, command

PACKAGES = ("autotune", "search_spaces")
# Fewer steps, pictures and candidates than the README's: the way is the same.
SMALL = ["--steps", "3", "--trials", "1", "--timeout", "1s", "--images", "8", "--held-out-images", "8"]
# Runs before everything else in the installed environment's processes.
NO_NETWORK = """
import socket
class _Refused(socket.socket):
    def connect(self, address):
        raise OSError(f"a test forbids connections, here to {address}")
    connect_ex = connect
socket.socket = _Refused
"""


def sources(folder: Path) -> set[str]:
    """The packages' files, as paths from ``folder``."""
    files = (file for package in PACKAGES for file in (folder / package).rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix() for file in files if "__pycache__" not in file.parts}


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and with the dependencies of the running one."""

    bin: Path
    folder: Path

    def run(self, *command: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command of the environment in an empty folder; returns what it prints."""
        clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        process = subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=clean | {"PATH": path, "HF_HUB_OFFLINE": "1", "POSTDIFF_CACHE": str(self.folder.parent / "cache")},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert process.returncode in codes, process.stderr
        return process.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of sdist and wheel; the wheel is built from the sdist."""
    tree = tmp_path_factory.mktemp("tree") / "postdiff"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tree.parent / "dist"), str(tree)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree.parent / "dist"


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    places = sysconfig.get_paths("venv", {"base": str(folder / "venv"), "platbase": str(folder / "venv")})
    packages = Path(places["purelib"])
    (wheel,) = built.glob("*.whl")
    python = Path(places["scripts"]) / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # Only now, or pip would find the wheel installed already where the running environment has it. The line is a path
    # and added as it is: what that environment installs as editable is not found there.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "no_network.py").write_text(NO_NETWORK)
    (packages / "no_network.pth").write_text("import no_network\n")
    (folder / "empty").mkdir()
    return Installed(Path(places["scripts"]), folder / "empty")


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.partition("/")[0] in PACKAGES}
    assert packed == sources(ROOT)
    assert wheel.stat().st_size < 40_000_000


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_from_nothing_to_pictures_by_the_readmes_first_commands(installed: Installed) -> None:
    """Installing is the first of three; the wheel stands for the clone, whose files it holds."""
    assert command('pip install ".[tune]"') == ["pip", "install", ".[tune]"]

    place = "import autotune, search_spaces; print(autotune.__file__, search_spaces.__file__, sep='\\n')"
    for file in installed.run("python", "-c", place).splitlines():
        assert Path(file).is_relative_to(installed.bin.parent)
    assert autotune.__version__ in installed.run("postdiff", "--version")
    assert json.loads(installed.run("postdiff", "schema"))["title"] == "PostDiff policy"

    installed.run(*command("postdiff-tune --budget 40%"), *SMALL, codes=(0, 3))
    run = installed.folder / "runs" / "emoji-unet-40pct"
    policy = read_policy(run / "policy.json")
    assert policy.cost is not None and policy.cost.relative <= 0.4
    assert "<!doctype html>" in (run / "report.html").read_text()

    installed.run(*command("postdiff generate"))
    with Image.open(installed.folder / "apple.png") as picture:
        assert picture.size == (64, 64)
    assert "of the full run" in installed.run("postdiff", "price", str(run / "policy.json"))
