"""Short hashes of what JSON can write, and of a config, by which policies recognise a denoiser and a scheduler."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def digest(value: object) -> str:
    """A short hash of anything JSON can write."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def fingerprint(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """A hash of what a config sets differently from its class's defaults.

    Leaving the defaults out keeps the hash when a model is saved again with every key spelt
    out, and when a later diffusers release adds a key. Keys that begin with an underscore say
    where a config came from, not what is computed.
    """
    content = {
        key: value
        for key, value in json.loads(json.dumps(dict(config), default=str)).items()
        if not key.startswith("_") and not (key in defaults and _same(defaults[key], value))
    }
    return digest(content)


def _same(default: Any, value: Any) -> bool:
    return bool(json.loads(json.dumps(default, default=str)) == value)
