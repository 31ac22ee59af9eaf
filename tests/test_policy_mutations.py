"""Whatever happens to a policy on its way: it loads as a policy equal under round trip, or is refused in one line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune import load_policy
from autotune.errors import PolicyError
from autotune.policy import MAX_ID, MAX_MESSAGE, Policy

from .strategies import EXAMPLES, JUNK, mutated_documents, mutated_texts, policies

SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.large_base_example]


@settings(max_examples=2000, deadline=None, suppress_health_check=SUPPRESSED)
@given(document=mutated_documents())
def test_mutated_documents_load_or_are_refused(document: dict[str, Any]) -> None:
    _loads_or_is_refused(document)


@settings(max_examples=2000, deadline=None, suppress_health_check=SUPPRESSED)
@given(data=mutated_texts())
def test_mutated_files_load_or_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(data)
    _loads_or_is_refused(path)


@settings(deadline=None)
@given(policy=policies(everything=True))
def test_valid_policies_load(policy: Policy) -> None:
    assert _loads_or_is_refused(policy.to_dict()) == policy


@pytest.mark.parametrize("policy", EXAMPLES, ids=lambda policy: policy.id)
def test_the_unmutated_examples_load(policy: Policy) -> None:
    assert _loads_or_is_refused(policy.to_dict()) == policy


@pytest.mark.parametrize("key", [*Policy.model_fields, "unknown"])
def test_any_junk_under_any_key_loads_or_is_refused(key: str) -> None:
    for junk in JUNK:
        _loads_or_is_refused({"format": "postdiff-policy", "version": 1, "steps": 3, key: junk})


@settings(max_examples=200, deadline=None)
@given(source=st.text(max_size=300) | st.sampled_from(["x" * 5000, "a/" * 3000, "\0", "\ud800", "", ".", "a\nb.json"]))
def test_any_text_as_a_path_is_refused(source: str) -> None:
    _loads_or_is_refused(source)


@pytest.mark.parametrize("source", [None, 3, 3.5, b"policy.json", [], ["policy.json"], object()])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(PolicyError, match="path, a dict or a Hub id"):
        load_policy(source)


def _loads_or_is_refused(source: Any) -> Policy | None:
    try:
        policy = load_policy(source)
    except PolicyError as error:
        message = str(error)
        assert message and len(message) <= MAX_MESSAGE
        assert message.isprintable()
        return None
    assert load_policy(policy.to_dict()) == policy
    # JSON has one kind of number list, and what was a tuple comes back as a list.
    again = load_policy(json.loads(json.dumps(policy.to_dict(), allow_nan=False)))
    assert again == policy
    assert again.key == policy.key
    assert re.fullmatch(r"[A-Za-z0-9_.@+~-]+", policy.id) and len(policy.id) <= MAX_ID
    return policy
