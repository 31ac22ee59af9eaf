"""Processes that find only what some distributions require, as in an environment where nothing else was installed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ABSENT = "POSTDIFF_TESTS_ABSENT"
_OURS = {"autotune", "search_spaces", "studies", "tests"}

# Makes top-level packages look as if they were not installed, to importlib.metadata as well; to be run before all else.
HIDE = f"""
import importlib.machinery, importlib.metadata, os, sys
_absent = set(os.environ.get("{_ABSENT}", "").split())
_finder = importlib.machinery.PathFinder

class _Plain:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name.partition(".")[0] in _absent else _finder.find_spec(name, path, target)

    @staticmethod
    def find_distributions(context=importlib.metadata.DistributionFinder.Context()):
        names = {{found.lower().replace("_", "-") for found in _absent}}
        return (d for d in _finder.find_distributions(context) if d.name.lower().replace("_", "-") not in names)

sys.meta_path[sys.meta_path.index(_finder)] = _Plain
"""


def hiding(packages: Iterable[str]) -> dict[str, str]:
    """This process's environment, and what ``HIDE`` reads in it: names of top-level packages."""
    return os.environ | {_ABSENT: " ".join(packages)}


def absent(requirements: Iterable[str]) -> list[str]:
    """Top-level packages installed here that an environment with nothing but ``requirements`` would not have."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        found = waiting.pop()
        wanted = (canonicalize_name(found.name), frozenset(found.extras))
        if wanted not in seen:
            seen.add(wanted)
            waiting += [each for each in _requirements(wanted[0]) if _applies(each, found.extras or {""})]
    present = {name for name, _ in seen}
    return sorted(
        package
        for package, owners in packages_distributions().items()
        if package not in _OURS and not present & {canonicalize_name(owner) for owner in owners}
    )


def _applies(requirement: Requirement, extras: Iterable[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


@cache
def _requirements(name: str) -> tuple[Requirement, ...]:
    try:
        return tuple(Requirement(text) for text in requires(name) or ())
    except PackageNotFoundError:  # For another platform or Python.
        return ()
