"""The options of ``postdiff models``."""

from __future__ import annotations

from autotune.cli.arguments import Json


def models(json: Json = False) -> None:
    """List the supported pipelines and schedulers, and the shipped models."""
    from autotune.cli.supported import print_supported

    print_supported(as_json=json)
