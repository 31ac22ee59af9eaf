"""Loading policies from wherever people keep them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from autotune.core.errors import PolicyError, reason_of
from autotune.policy.policy import Policy, policy_from_dict, read_policy

_HUB_ID = re.compile(r"[\w-]+(?:\.[\w-]+)*/[\w-]+(?:\.[\w-]+)*")
POLICY_FILE = "policy.json"
# A Hub id has at most 96 characters.
_LONGEST_NAME = 96
_LONGEST_REASON = 90


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
    if isinstance(source, Mapping):
        return policy_from_dict(source)
    if not isinstance(source, str | os.PathLike):
        raise PolicyError(
            f"a policy comes from a path, a dict or a Hub id, not from an object of type {type(source).__name__}"
        )
    # os.path.exists, for Path.exists raises on names that are too long.
    if isinstance(source, str) and is_hub_id(source) and not os.path.exists(source):
        return read_policy(_download(source, filename, revision))
    return read_policy(source)


def is_hub_id(text: str) -> bool:
    """Whether ``text`` looks like ``user/repo`` rather than the path of a JSON file."""
    return _HUB_ID.fullmatch(text) is not None and not text.endswith(".json")


def _download(repository: str, filename: str, revision: str | None) -> str:
    # Here, because policies from files and dicts need no hub.
    from huggingface_hub import hf_hub_download

    try:
        return str(hf_hub_download(repository, filename, revision=revision))
    except Exception as error:  # Everything from bad ids to lost connections, of several libraries.
        name = repository if len(repository) <= _LONGEST_NAME else f"{repository[: _LONGEST_NAME - 3]}..."
        reason = reason_of(error, _LONGEST_REASON)
        raise PolicyError(
            f"{name}: neither a file nor a policy that the Hugging Face Hub gives out ({reason});"
            f" check the path, or that the repository holds {filename}"
        ) from None
