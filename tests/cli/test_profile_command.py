"""``postdiff profile``, and what is done with its file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from autotune.cost import load_profile
from autotune.policy import Policy, read_policy

from .conftest import Finished

Run = Callable[..., Finished]


@pytest.fixture
def profiled(postdiff: Run, tmp_path: Path) -> Path:
    """Of the shipped Transformer's configs, at two sizes."""
    done = postdiff(
        "profile", "--model", "emoji-dit", "--config-only", "--scales", "0.5", "--batch", "1,2", "--out", "cpu.json"
    )
    assert done.code == 0, done.errors
    assert "cpu.json" in done.output and "PixArtAlphaPipeline 64 x 64" in done.output
    return tmp_path / "cpu.json"


def test_a_profile_of_configs_alone_prices_a_policy(in_process: Run, profiled: Path, tmp_path: Path) -> None:
    profile = load_profile(profiled)
    assert [times.batch for times in profile.batches] == [1, 2]
    assert {(call.height, call.branches) for call in profile.batches[0].calls} == {(8, 1), (8, 2), (16, 1), (16, 2)}
    Policy(steps=8).save(tmp_path / "policy.json")
    arguments = ("price", "policy.json", "--model", "emoji-dit", "--target", "cpu.json", "--json")
    one, two = (json.loads(in_process(*arguments, *more).output) for more in ((), ("--batch", "2")))
    assert 0 < one["latency_ms"] < two["latency_ms"] < one["full"]["latency_ms"] * 2
    assert one["device"] == profile.device.title


@pytest.mark.exhaustive
def test_a_budget_in_time_is_tuned_for_a_target(postdiff: Run, tmp_path: Path) -> None:
    profile = postdiff("profile", "--batch", "2", "--out", "here.json")
    assert profile.code == 0, profile.errors
    done = postdiff(
        *("tune", "--budget", "50%ms", "--budget", "2.5x,60%", "--target", "here.json", "--max-cache-memory", "2MB"),
        *("--trials", "2", "--timeout", "1", "--images", "8", "--held-out-images", "8", "--out", "both"),
    )
    assert done.code in (0, 3), done.errors
    for name, share in (("policy-50ms.json", 0.5), ("policy-2.5x-60.json", 0.4)):
        policy = read_policy(tmp_path / "both" / name)
        assert policy.cost is not None
        (predicted,) = policy.cost.predicted
        assert predicted.relative <= share and predicted.batch_size == 2
        assert policy.cost.cache_bytes * 2 <= 2_000_000
