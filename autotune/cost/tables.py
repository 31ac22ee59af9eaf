"""Tables of work on disk, so that a model is counted once and not once a process."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from autotune.core.cache_folder import cache_file, keep
from autotune.core.records import Count, Record
from autotune.cost.releases import versions
from autotune.cost.work import Work, WorkTable
from autotune.plan.structure import Structure

_LOG = logging.getLogger(__name__)

VERSION = 2
# Searches and tests ask for the same few again and again.
_LOADED: dict[Hashable, WorkTable] = {}


class _Stored(Record):
    """``units`` and ``always`` are pairs of FLOPs and MACs of convolutions and linear layers."""

    units: tuple[tuple[Count, Count], ...]
    elements: tuple[Count, ...]
    always: tuple[Count, Count]
    output: Count


def cached_table(count: Callable[[], WorkTable], structure: Structure, *key: Hashable) -> WorkTable:
    """The table that ``count`` makes, from memory or disk where it was made before.

    Args:
        key: what the table depends on besides the structure: model, sizes. It must mean the same in every process.
    """
    names = tuple(unit.name for unit in structure.units)
    known = (names, *key)
    if known not in _LOADED:
        path = cache_file("flops", VERSION, versions(), names, key)
        table = _read(path, len(names))
        if table is None:
            table = count()
            keep(path, json.dumps(_document(table)))
        _LOADED[known] = table
    return _LOADED[known]


def _read(path: Path, units: int) -> WorkTable | None:
    """A table that was kept, or None where there is none to be relied on."""
    try:
        stored = _Stored.model_validate_json(path.read_bytes())
    except OSError:
        return None
    except ValidationError as error:
        _LOG.debug("%s is counted again: %s", path, error)
        return None
    if len(stored.units) != units or len(stored.elements) != units:
        return None
    return WorkTable(tuple(Work(*work) for work in stored.units), stored.elements, Work(*stored.always), stored.output)


def _document(table: WorkTable) -> dict[str, Any]:
    return {
        "units": [[work.flops, work.macs_conv_linear] for work in table.units],
        "elements": list(table.elements),
        "always": [table.always.flops, table.always.macs_conv_linear],
        "output": table.output,
    }
