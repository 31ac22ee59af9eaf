"""What is published installs by itself: sdist, wheel, and the README's first commands, offline, without sources.

With the extra ``tune`` everything works; without it what deployment needs, and the rest says which extra is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PathDistribution, packages_distributions
from pathlib import Path
from typing import Any

import pytest
import typer.main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

import autotune
from autotune.cli.app import app
from autotune.core.extras import TUNER
from autotune.policy import read_policy
from tests.support.plain_install import HIDE, absent, hiding
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
STUDIES = sorted((ROOT / "studies").glob("*.toml"))
# What study files name.
NAMED_FILES = sorted((ROOT / "studies").glob("*.jsonl"))

# Every command as far as it can be tried on one policy, and whether it needs the extra. Those that do are first: they
# load no torch.
COMMANDS: list[tuple[list[str], bool]] = [
    (["tune"], True),
    (["tune", "--study", "emoji-unet", "--dry-run"], True),
    (["compare", "--policy", "policy.json"], True),
    (["profile"], True),
    (["report", "."], True),
    (["dashboard", "."], True),
    (["worker", "--storage", "sqlite:///study.db", "--study-name", "mine"], True),
    (["schema"], False),
    (["tune", "--help"], False),
    (["models"], False),
    (["describe", "policy.json"], False),
    (["describe"], False),
    (["price", "policy.json"], False),
    (["export", "policy.json", "--to", "cache-dit", "--model", "emoji-dit", "--out", "cache.yaml"], False),
    (["generate", "--policy", "policy.json", "--prompt", "red apple", "--out", "apple.png"], False),
]
# All of them in one process, which takes most of its time to load torch; a line of JSON for each.
RUNNER = """
import contextlib, io, json, sys
from autotune.cli import run

for arguments in json.loads(sys.argv[1]):
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        code = run(arguments)
    print(json.dumps([code, output.getvalue(), errors.getvalue(), "torch" in sys.modules]))
"""
# What a server does, and what is looked at before: the shipped model under a policy, its price, its space, a card.
DEPLOYMENT = """
import json
import autotune, search_spaces
from autotune.policy.hub import card

pipe = autotune.demo_pipeline()
policy = autotune.Policy(steps=2, model=autotune.full_policy(pipe).model)
policy.save("policy.json")
policy = autotune.load_policy("policy.json")
with autotune.applied(pipe, policy):
    pipe("red apple", guidance_scale=2.5).images[0].save("apple.png")
refusals = []
for name in ("tune", "compare"):
    try:
        getattr(autotune, name)
    except autotune.errors.InputError as error:
        refusals.append(str(error))
knobs = [knob.name for knob in search_spaces.space_for(pipe).knobs]
print(json.dumps([autotune.price(pipe, policy).relative, knobs, card(policy, "user/apples"), refusals]))
"""
# What the command makes of every name that 'postdiff models' lists.
NAMED_STUDIES = """
import json
import tomllib
from pathlib import Path
import autotune.cli.tune
from autotune.cli import run
from autotune.cli.packaged_studies import find_study, study_files

asked = []
autotune.cli.tune.run_tune = lambda request: asked.append(request) or 0
Path("rows.jsonl").write_text('{"prompt": "a red apple"}')
for study in study_files():
    # Pictures to begin with are the user's.
    own = {"prompts", "inputs"} & tomllib.loads(find_study(Path(study.name)).read_text()).keys()
    rows = [] if own else ["--inputs", "rows.jsonl"]
    assert run(["tune", "--study", study.name, *rows]) == 0, study
    request = asked[-1]
    named = [request.source.name, request.options.study_name]
    print(json.dumps([study.name, str(find_study(Path(study.name))), *named]))
"""


def sources(folder: Path) -> set[str]:
    """The packages' files, as paths from ``folder``."""
    files = (file for package in PACKAGES for file in (folder / package).rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix() for file in files if "__pycache__" not in file.parts}


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel, and with the dependencies of the running one, but for those that are hidden."""

    bin: Path
    folder: Path
    environment: Mapping[str, str]

    def run(self, *command: str, codes: tuple[int, ...] = (0,)) -> str:
        """Run a command of the environment in a folder of its own; returns what it prints."""
        process = self.process(*command)
        assert process.returncode in codes, process.stderr
        return process.stdout

    def process(self, *command: str) -> subprocess.CompletedProcess[str]:
        """The same, whatever comes of it."""
        clean = {name: value for name, value in self.environment.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
        path = f"{self.bin}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            [str(self.bin / command[0]), *command[1:]],
            cwd=self.folder,
            env=clean | {"PATH": path, "HF_HUB_OFFLINE": "1", "POSTDIFF_CACHE": str(self.folder.parent / "cache")},
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of sdist and wheel; the wheel is built from the sdist."""
    tree = tmp_path_factory.mktemp("tree") / "postdiff"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    # Scripts stay in the repository.
    shutil.copytree(ROOT / "studies", tree / "studies", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
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
    (packages / "hide_packages.py").write_text(HIDE)
    (packages / "hide_packages.pth").write_text("import hide_packages\n")
    (folder / "empty").mkdir()
    return Installed(Path(places["scripts"]), folder / "empty", os.environ)


@pytest.fixture(scope="module")
def requirements(built: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Requirement]:
    """The wheel's."""
    (wheel,) = built.glob("*.whl")
    (metadata,) = (path for path in zipfile.Path(wheel).iterdir() if path.name.endswith(".dist-info"))
    return [Requirement(text) for text in PathDistribution(metadata).requires or ()]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def plain(installed: Installed, requirements: list[Requirement], tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """As after ``pip install .``: what no extra brings is not there."""
    hidden = absent([str(each) for each in requirements if each.marker is None])
    assert {*TUNER} - {*hidden} <= {"jinja2"}, "which torch requires"
    return Installed(installed.bin, tmp_path_factory.mktemp("plain"), hiding(hidden))


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_the_study_files(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert STUDIES
    assert packed == sources(ROOT) | {f"autotune/studies/{file.name}" for file in (*STUDIES, *NAMED_FILES)}
    assert wheel.stat().st_size < 40_000_000


@pytest.mark.slow
def test_a_plain_installation_brings_deployment_only(requirements: list[Requirement]) -> None:
    always = {canonicalize_name(each.name) for each in requirements if each.marker is None}
    command_line = {"typer", "rich", "platformdirs"}
    assert always == {"torch", "diffusers", "transformers", "pydantic", "safetensors", "huggingface-hub"} | command_line


@pytest.mark.slow
def test_the_extra_brings_what_the_package_looks_for(requirements: list[Requirement]) -> None:
    extra = {
        canonicalize_name(each.name)
        for each in requirements
        if each.marker and each.marker.evaluate({"extra": "tune"}) and not each.marker.evaluate({"extra": ""})
    }
    owners = packages_distributions()
    assert {canonicalize_name(owners[package][0]) for package in TUNER} == extra


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


@pytest.mark.slow
def test_without_the_extra_a_policy_is_applied_priced_and_shared(plain: Installed) -> None:
    relative, knobs, card, refusals = json.loads(plain.run("python", "-c", DEPLOYMENT))
    assert relative == 0.1 and "interval" in knobs and "2 steps" in card
    for name, refusal in zip(("autotune.tune", "autotune.compare"), refusals, strict=True):
        assert name in refusal and "pip install 'postdiff[tune]'" in refusal
    with Image.open(plain.folder / "apple.png") as picture:
        assert picture.size == (64, 64)


@pytest.mark.slow
def test_without_the_extra_every_command_works_or_names_it(plain: Installed) -> None:
    group: Any = typer.main.get_command(app)
    assert {arguments[0] for arguments, _ in COMMANDS} == {*group.commands}
    plain.run("python", "-c", "import autotune; autotune.Policy(steps=2).save('policy.json')")
    before = {*plain.folder.iterdir()}
    said = plain.run("python", "-c", RUNNER, json.dumps([arguments for arguments, _ in COMMANDS])).splitlines()
    for (arguments, needs_extra), line in zip(COMMANDS, said, strict=True):
        code, output, errors, torch_is_loaded = json.loads(line)
        if not needs_extra:
            assert (code, errors) == (0, ""), arguments
            continue
        (sentence,) = errors.splitlines()
        assert (code, output, torch_is_loaded) == (2, "", False), arguments
        assert sentence.startswith(f"postdiff: {arguments[0]} needs") and "'postdiff[tune]'" in sentence
    assert {*plain.folder.iterdir()} - before <= {plain.folder / name for name in ("apple.png", "cache.yaml")}


@pytest.mark.slow
def test_without_the_extra_the_first_command_names_it(plain: Installed) -> None:
    process = plain.process(*command("postdiff-tune --budget 40%"))
    assert process.returncode == 2 and process.stdout == ""
    (sentence,) = process.stderr.splitlines()
    assert "pip install 'postdiff[tune]'" in sentence


@pytest.mark.slow
def test_study_files_are_found_by_name_once_installed(installed: Installed) -> None:
    found = [json.loads(line) for line in installed.run("python", "-c", NAMED_STUDIES).splitlines()]
    assert [name for name, *_ in found] == [file.stem for file in STUDIES]
    for (name, place, model, study_name), file in zip(found, STUDIES, strict=True):
        assert Path(place).is_relative_to(installed.bin.parent) and Path(place).read_text() == file.read_text()
        assert f'model = "{model}"' in file.read_text() and study_name == f"{name}-40pct"
