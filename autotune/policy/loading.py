"""Loading policies from wherever people keep them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from autotune.core.errors import PolicyError
from autotune.core.naming import is_hub_id
from autotune.core.records import read_document, refusal, shown, validated
from autotune.policy.canonical import MAX_BYTES, digest
from autotune.policy.document import FORMAT, VERSIONS
from autotune.policy.hub import POLICY_FILE, download
from autotune.policy.policy import Policy

__all__ = ["POLICY_FILE", "is_hub_id", "load_policy", "policy_from_dict", "read_policy"]


def load_policy(
    source: str | os.PathLike[str] | Mapping[str, Any], *, filename: str = POLICY_FILE, revision: str | None = None
) -> Policy:
    """Load a policy and check it strictly.

    Args:
        source: the path of a policy file, the document itself as a dict, or a Hugging Face Hub id
            (``user/repo``) that the policy is downloaded from. What exists as a file is a file.
        filename: its name in the Hub's repository.
        revision: branch, tag or commit there; a commit never changes.

    Raises:
        PolicyError: it is missing, unreadable, changed after its export, or not a valid policy.

    Example:
        >>> load_policy({"format": "postdiff-policy", "version": 1, "steps": 20}).id
        's20'
    """
    return policy_from_dict(source) if isinstance(source, Mapping) else read_policy(located(source, filename, revision))


def located(source: str | os.PathLike[str], filename: str, revision: str | None) -> str | os.PathLike[str]:
    """The path of a file that people name by its path or a Hub id, which it is then downloaded from.

    Raises:
        PolicyError: it is named by neither, or the Hub does not give it out.
    """
    if not isinstance(source, str | os.PathLike):
        raise PolicyError(
            f"a policy comes from a path, a dict or a Hub id, not from an object of type {type(source).__name__}"
        )
    # os.path.exists, for Path.exists raises on names that are too long.
    if isinstance(source, str) and is_hub_id(source) and not os.path.exists(source):
        return download(source, filename, revision)
    return source


def policy_from_dict(document: Mapping[str, Any], source: str = "policy") -> Policy:
    """Validate a dict strictly.

    Raises:
        PolicyError: one sentence naming the key, the value and the nearest valid choice.
    """
    refuse = refusal(source, PolicyError)
    named, version = document.get("format"), document.get("version")
    if not isinstance(named, str) or named != FORMAT:
        several = (
            " (it holds several: name one of its tiers, or use load_policies)" if named == "postdiff-policies" else ""
        )
        raise refuse(f"not a policy file, its 'format' is not {FORMAT!r}{several}")
    if type(version) is not int or version not in VERSIONS:
        known = f"{', '.join(map(str, VERSIONS[:-1]))} and {VERSIONS[-1]}"
        raise refuse(f"policy version {shown(version)} is unknown, this release reads {known}")
    policy = validated(Policy, document, refuse)
    checksum = policy.provenance.checksum if policy.provenance else None
    if checksum is not None:
        content = policy.to_dict()
        content["provenance"]["checksum"] = None
        if checksum != digest(content):
            raise refuse(
                "changed after it was exported (its checksum does not match), so its cost and quality no longer"
                " describe it; export it again, or remove 'cost', 'quality' and 'provenance' to use it as new",
            )
    return policy


def read_policy(path: str | os.PathLike[str]) -> Policy:
    """Load and validate a policy file.

    Raises:
        PolicyError: the file is missing, unreadable, too large, not JSON, or not a valid policy.
    """
    return policy_from_dict(read_document(path, MAX_BYTES, "policy", PolicyError), str(path))
