"""``postdiff --version``: this release, and those of what it depends on that change pictures, prices or studies."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import autotune

PACKAGES = ("torch", "diffusers", "transformers", "optuna")


def version_text() -> str:
    """A line for each, this release first; the packages are asked for, not imported."""
    lines = [("postdiff", autotune.__version__), *((name, _installed(name)) for name in PACKAGES)]
    return "\n".join(f"{name} {found}" for name, found in [*lines, ("python", platform.python_version())])


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "is not installed"
