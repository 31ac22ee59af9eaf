"""What a search may vary, per family of denoisers: a few ordinal knobs, and the policies they stand for.

Importing this package loads no torch: :func:`space_for`, which looks at a model, brings it when it is first used.

Example:
    >>> import search_spaces
    >>> space = search_spaces.space_for(autotune.demo_pipeline(), steps=12)
    >>> [knob.name for knob in space.knobs if knob.name.startswith("interval")]
    ['interval']
    >>> space.sample(seed=0).steps
    12
    >>> space.from_trial(optuna.create_study().ask()).steps
    12
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from autotune.core.lazy import attributes
from search_spaces.files import engine_named, read_ranges
from search_spaces.knobs import Knob
from search_spaces.levers import Lever
from search_spaces.moves import moved
from search_spaces.space import Recipe, SearchSpace
from search_spaces.transformer import TransformerSpace
from search_spaces.unet import UNetSpace

if TYPE_CHECKING:
    from search_spaces.of_pipeline import space_for

__all__ = [
    "Knob",
    "Lever",
    "Recipe",
    "SearchSpace",
    "TransformerSpace",
    "UNetSpace",
    "engine_named",
    "moved",
    "read_ranges",
    "space_for",
]

__getattr__ = attributes(__name__, {"space_for": "of_pipeline"})
