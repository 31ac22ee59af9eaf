from __future__ import annotations

from pathlib import Path

import pytest

from autotune.core.naming import FULL_RUN, default_comparison_name, is_hub_id, policy_names


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("user/repo", True),
        ("org.name/some-policy_v1.0", True),
        ("policy.json", False),
        ("runs/policy.json", False),
        ("a/b/c", False),
        ("../policy", False),
        ("/tmp", False),
    ],
)
def test_hub_ids_are_told_from_paths(text: str, expected: bool) -> None:
    assert is_hub_id(text) is expected


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["mine.json", "other/theirs.json"], ["mine", "theirs"]),
        (
            ["runs/emoji-unet-40pct/policy.json", "runs/emoji-unet-2x/policy.json"],
            ["emoji-unet-40pct", "emoji-unet-2x"],
        ),
        (["policy.json"], ["policy"]),
        (["a/x.json", "b/x.json", "x-2.json", "x.json"], ["x", "x-2", "x-2-2", "x-3"]),
        (["full run.json"], ["full run-2"]),
        (["somebody/sdxl-v1.5"], ["sdxl-v1.5"]),
        ([" two\nlines .json"], ["two lines"]),
    ],
)
def test_policies_are_called_by_their_files_and_no_two_alike(sources: list[str], names: list[str]) -> None:
    assert policy_names(sources) == names
    assert FULL_RUN not in names


def test_a_file_that_looks_like_a_hub_id_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert policy_names(["somebody/mine.v1"]) == ["mine.v1"]
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "mine.v1").touch()
    assert policy_names(["somebody/mine.v1"]) == ["mine"]


def test_a_comparison_is_called_by_its_policies_and_stays_short() -> None:
    assert default_comparison_name(["mine", "a policy/of mine"]) == "compare-mine-a-policy-of-mine"
    many = [f"policy-{number}" for number in range(30)]
    name = default_comparison_name(many)
    assert len(name) == 60 and name.startswith("compare-policy-0-policy-1-")
    assert name != default_comparison_name([*many, "one more"])
