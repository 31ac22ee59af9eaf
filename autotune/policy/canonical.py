"""The canonical forms of a policy: its readable id, the key of what it executes, its text with a checksum.

Equal policies have equal forms, on every machine and in every release.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from autotune.core.errors import PolicyError
from autotune.core.records import to_json
from autotune.policy.document import PolicyDocument
from autotune.policy.records import Provenance
from autotune.policy.techniques import CacheRule

MAX_BYTES = 8 * 1024
MAX_ID = 120

_EXECUTED = {"steps", "scheduler", "timesteps", "sigmas", "resolution", "guidance", "cache"}


def id_of(policy: PolicyDocument) -> str:
    """The readable id; :attr:`autotune.Policy.id` says what it is made of."""
    solver = f"@{policy.scheduler.name.removesuffix('Scheduler')}" if policy.scheduler else ""
    parts = [f"s{policy.steps}{solver}"]
    if policy.timesteps != "default":
        parts.append(f"ts-{policy.timesteps if isinstance(policy.timesteps, str) else 'list'}")
    if policy.sigmas is not None:
        parts.append("sigmas")
    for stage in policy.resolution:
        matched = "~" if stage.handoff == "noise_matched" else ""
        parts.append(f"r{stage.scale:.2f}@{stage.until_step}{matched}")
    parts += [_rule_id(rule) for rule in policy.cache]
    if policy.guidance is not None:
        start = f"{policy.guidance.start_step}_" if policy.guidance.start_step else ""
        rate = _spacing(policy.guidance.compute_steps) if policy.guidance.compute_steps else ""
        factor = "" if policy.guidance.factor is None else f"x{policy.guidance.factor:g}"
        after = "+ca" if policy.guidance.after == "cross_attention" else ""
        parts.append(f"g{start}{policy.guidance.stop_step}{rate}{factor}{after}")
    text = "-".join(parts)
    return text if len(text) <= MAX_ID else f"{text[: MAX_ID - 9]}-{key_of(policy)[:8]}"


def key_of(policy: PolicyDocument) -> str:
    """A hash of what is executed: equal for policies that differ only in their records."""
    return digest(policy.model_dump(mode="json", include=_EXECUTED))


def text_of(policy: PolicyDocument) -> str:
    """The policy as its file has it, with a checksum over its content.

    Raises:
        PolicyError: the file would exceed 8 KB.
    """
    document = policy.model_dump(mode="json")
    provenance = document["provenance"] or Provenance().model_dump(mode="json")
    document["provenance"] = provenance | {"checksum": None}
    document["provenance"]["checksum"] = digest(document)
    text = to_json(document)
    if len(text.encode()) > MAX_BYTES:
        raise PolicyError(f"the policy takes {len(text.encode())} bytes, a policy file holds at most {MAX_BYTES}")
    return text


def digest(document: Mapping[str, Any]) -> str:
    """A hash of a policy's fields, or of some of them, as JSON has them."""
    # Keys that came later count only where they are used: files and studies from before stay as they are.
    counted = {key: value for key, value in document.items() if value is not None or key not in ("scheduler", "sigmas")}
    text = json.dumps(counted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _rule_id(rule: CacheRule) -> str:
    how = "x" if rule.mode == "residual" else ""
    if rule.weights is not None:
        how += f"w{max(map(len, rule.weights), default=0)}"
    elif rule.order:
        how += f"f{rule.order}"
    # No file name on Windows holds a star.
    units = "+".join(rule.units).replace("**", "all").replace("*", "each")
    return units + _spacing(rule.compute_steps) + how


def _spacing(steps: Sequence[int]) -> str:
    """``i`` and the interval of evenly spaced steps, ``n`` and the number of others."""
    gaps = {b - a for a, b in pairwise(steps)}
    return f"i{gaps.pop()}" if len(gaps) == 1 else f"n{len(steps)}"
