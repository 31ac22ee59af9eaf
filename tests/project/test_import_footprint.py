"""What deployment loads: torch, diffusers, pydantic and what these require, nothing else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import autotune

SOURCE = Path(autotune.__file__).parents[1]
DEPLOYED = ("torch", "diffusers", "pydantic")

# Makes the packages named in argv[2:] look as if they were not installed, then runs argv[1].
WITHOUT = """
import importlib.machinery, importlib.metadata, sys
absent = set(sys.argv[2:])
finder = importlib.machinery.PathFinder

class Deployed:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in absent else finder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(context=importlib.metadata.DistributionFinder.Context()):
        names = {found.lower().replace("_", "-") for found in absent}
        return (d for d in finder.find_distributions(context) if d.name.lower().replace("_", "-") not in names)

sys.meta_path[sys.meta_path.index(finder)] = Deployed
exec(sys.argv[1])
"""


def test_the_runtime_needs_torch_diffusers_and_pydantic_only() -> None:
    absent = _absent_in_deployment()
    assert {"optuna", "typer", "rich", "transformers", "open_clip", "sqlalchemy"} <= {name.lower() for name in absent}
    script = (
        "import autotune, autotune.runtime\n"
        "autotune.load_policy, autotune.apply_policy, autotune.remove_policy, autotune.applied, autotune.full_policy\n"
        "assert autotune.Policy(steps=4).id == 's4'"
    )
    _run(WITHOUT, script, *absent)


def test_the_test_sees_what_is_absent() -> None:
    _run(WITHOUT, "try:\n    import optuna\nexcept ModuleNotFoundError: pass\nelse: raise SystemExit(1)", "optuna")


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'diffusers', 'numpy', 'optuna', 'pydantic', 'typer', 'rich'}"
    _run(f"import sys, autotune; assert not {heavy} & set(sys.modules)")


def test_every_public_name_resolves() -> None:
    for name in autotune.__all__:
        assert getattr(autotune, name) is not None


def _absent_in_deployment() -> list[str]:
    """Top-level packages installed here that deployment would not have."""
    allowed = {_canonical("postdiff")}
    waiting = [_canonical(name) for name in DEPLOYED]
    while waiting:
        name = waiting.pop()
        if name in allowed:
            continue
        allowed.add(name)
        for requirement in _requirements(name):
            if "extra ==" not in requirement:
                waiting.append(_canonical(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]))
    ours = {"autotune", "search_spaces", "studies", "tests"}
    return sorted(
        package
        for package, owners in packages_distributions().items()
        if package not in ours and not allowed & {_canonical(owner) for owner in owners}
    )


def _requirements(name: str) -> list[str]:
    try:
        return requires(name) or []
    except ModuleNotFoundError:  # For another platform or Python.
        return []


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(script: str, *arguments: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
