"""Hashes tell apart what differs, and nothing else."""

from __future__ import annotations

from autotune.core.fingerprint import digest, fingerprint


def test_a_digest_is_the_same_for_the_same_content_in_any_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1})
    assert len({digest(value) for value in ([1, 2], [2, 1], {"a": 1}, "a", None, 1, 1.5)}) == 7


def test_defaults_and_where_a_config_came_from_do_not_count() -> None:
    defaults = {"steps": 1000, "clip": True}
    known = fingerprint({"steps": 500}, defaults)
    assert fingerprint({"clip": True, "steps": 500, "_name_or_path": "here"}, defaults) == known
    assert fingerprint({"clip": False, "steps": 500}, defaults) != known


def test_a_tuple_is_the_list_that_json_makes_of_it() -> None:
    assert fingerprint({"sizes": (1, 2)}, {}) == fingerprint({"sizes": [1, 2]}, {})
    assert fingerprint({"sizes": [1, 2]}, {"sizes": (1, 2)}) == fingerprint({}, {})
