"""Results of a study by budget, which may come from several runs of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autotune.core.records import write_atomically


def keep(cells: Sequence[Mapping[str, Any]], path: Path, settings: Mapping[str, Any]) -> None:
    """Write the cells of some budgets; those of others stay where they are of the same settings.

    Args:
        cells: Each with its ``budget``.
        path: Of the study's results.
        settings: What all cells of a file have in common.
    """
    former = json.loads(path.read_text()) if path.is_file() else {}
    found = {cell["budget"]: cell for cell in former.get("cells", ()) if settings.items() <= former.items()}
    found |= {cell["budget"]: cell for cell in cells}
    document = {**settings, "cells": [found[each] for each in sorted(found)]}
    write_atomically(path, json.dumps(document, indent=1) + "\n")
