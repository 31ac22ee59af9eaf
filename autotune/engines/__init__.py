"""Policies for other engines: as configurations of cache-dit and of diffusers' own caches.

A configuration is written only where the engine computes the same blocks in the same steps and comes to the same
pictures. Anything else is refused by the name of the lever that the engine has not.
"""

from __future__ import annotations

from autotune.engines.cache_dit import cache_dit_config, exportable_blocks
from autotune.engines.diffusers_cache import diffusers_config
from autotune.engines.refusals import EngineError

__all__ = ["ENGINES", "EngineError", "cache_dit_config", "diffusers_config", "exportable_blocks"]

ENGINES = ("cache-dit", "diffusers")
"""What policies can be exported to."""
