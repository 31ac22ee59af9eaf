from __future__ import annotations

from pathlib import Path

import pytest

from autotune import load_policy
from autotune.core.errors import PolicyError
from autotune.policy import Policy


def test_a_policy_loads_from_path_text_and_dict(tmp_path: Path) -> None:
    policy = Policy(steps=12)
    path = tmp_path / "policy.json"
    policy.save(path)
    assert load_policy(path).key == load_policy(str(path)).key == load_policy(policy.to_dict()).key == policy.key


def test_a_hub_id_is_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Policy(steps=12).save(tmp_path / "policy.json")
    asked = []

    def download(repository: str, file: str, revision: str | None) -> str:
        asked.append((repository, file, revision))
        return str(tmp_path / "policy.json")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    assert load_policy("user/repo").steps == 12
    assert load_policy("user/repo", filename="fast.json", revision="v1").steps == 12
    assert asked == [("user/repo", "policy.json", None), ("user/repo", "fast.json", "v1")]


def test_a_failed_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: str, **__: str) -> str:
        raise ConnectionError("no route to host.\nTraceback of another library")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(PolicyError, match=r"^user/repo: neither a file .* \(no route to host\); check") as refused:
        load_policy("user/repo")
    assert "\n" not in str(refused.value)
