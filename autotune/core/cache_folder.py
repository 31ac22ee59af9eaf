"""Where things are kept that can be made again: counted FLOPs and measured profiles, in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

from autotune.core.records import write_atomically

_LOG = logging.getLogger(__name__)

VARIABLE = "POSTDIFF_CACHE"
"""Environment variable that names another folder."""


def cache_folder() -> Path:
    """The folder; it need not exist."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("postdiff", appauthor=False)


def cache_file(kind: str, *content: Any) -> Path:
    """The file of something of a ``kind`` that ``content`` tells apart from all others."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:24]
    return cache_folder() / kind / f"{digest}.json"


def keep(path: Path, text: str) -> None:
    """Write a file of the cache; a folder that cannot be written to only means that it will be made again."""
    try:
        write_atomically(path, text)
    except OSError as error:
        _LOG.debug("nothing kept in %s: %s", path, error)
