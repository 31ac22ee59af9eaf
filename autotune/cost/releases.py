"""Which releases compute: what is counted and timed holds for them."""

from __future__ import annotations

from importlib.metadata import version


def versions() -> dict[str, str]:
    """The installed version of torch, diffusers and transformers, by name."""
    return {package: version(package) for package in ("torch", "diffusers", "transformers")}
