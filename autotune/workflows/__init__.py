"""What a user asks for, from beginning to end. Names come when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.core.lazy import attributes

if TYPE_CHECKING:
    from autotune.workflows.tune import TuneResult

__all__ = ["TuneResult"]

__getattr__ = attributes(__name__, {"TuneResult": "tune"})
