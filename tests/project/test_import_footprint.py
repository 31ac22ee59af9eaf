"""What parts of the package load: the runtime torch, diffusers, pydantic and what these require, nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import autotune
from tests.support.plain_install import HIDE, absent, hiding

SOURCE = Path(autotune.__file__).parents[1]
DEPLOYED = ("torch", "diffusers", "pydantic")


def test_the_runtime_needs_torch_diffusers_and_pydantic_only() -> None:
    hidden = absent(DEPLOYED)
    assert {"optuna", "typer", "rich", "transformers", "open_clip", "sqlalchemy"} <= {*hidden}
    script = (
        "import autotune, autotune.runtime\n"
        "autotune.load_policy, autotune.apply_policy, autotune.remove_policy, autotune.applied, autotune.full_policy\n"
        "autotune.price\n"
        "assert autotune.Policy(steps=4).id == 's4'"
    )
    _run(HIDE + script, *hidden)


def test_the_test_sees_what_is_absent() -> None:
    _run(HIDE + "try:\n    import optuna\nexcept ModuleNotFoundError: pass\nelse: raise SystemExit(1)", "optuna")


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'diffusers', 'numpy', 'optuna', 'pydantic', 'typer', 'rich'}"
    _run(f"import sys, autotune; assert not {heavy} & set(sys.modules)")


def test_every_public_name_resolves() -> None:
    for name in autotune.__all__:
        assert getattr(autotune, name) is not None


def _run(script: str, *hidden: str) -> None:
    process = subprocess.run(
        [sys.executable, "-c", script],
        env=hiding(hidden) | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
