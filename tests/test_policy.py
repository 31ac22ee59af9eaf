"""The policy file: what is written is read back, and nothing malformed gets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autotune.errors import PolicyError
from autotune.policy import (
    MAX_BYTES,
    CacheRule,
    Guidance,
    Policy,
    Provenance,
    ResolutionStage,
    policy_from_dict,
    read_policy,
)

RICH = Policy(
    steps=20,
    resolution=(ResolutionStage(scale=0.5, until_step=6),),
    guidance=Guidance(stop_step=15),
    cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 3, 6, 9, 12, 15, 18)),),
    provenance=Provenance(study="s", trial=3, seed=0, date="2026-01-01", versions={"torch": "2"}),
)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    steps = draw(st.integers(2, 60))
    until = sorted(draw(st.sets(st.integers(1, steps - 1), max_size=2)))
    scales = sorted(draw(st.sets(st.sampled_from([0.25, 0.5, 0.75]), min_size=len(until), max_size=len(until))))
    stop = draw(st.none() | st.integers(1, steps))
    rules = [
        CacheRule(
            units=(name,),
            mode="forecast" if order else "reuse",
            order=order,
            compute_steps=tuple(sorted({0, *draw(st.sets(st.integers(0, steps - 1)))})),
        )
        for order in [draw(st.none() | st.integers(1, 2))]
        for name in draw(st.sets(st.sampled_from(["up_blocks.0", "up_blocks.1", "mid_block"])))
    ]
    return Policy(
        steps=steps,
        resolution=tuple(ResolutionStage(scale=s, until_step=u) for s, u in zip(scales, until, strict=True)),
        guidance=None if stop is None else Guidance(stop_step=stop),
        cache=tuple(rules),
    )


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(policy=policies())
def test_what_is_saved_is_loaded(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    policy.save(path)
    loaded = read_policy(path)
    assert loaded.model_copy(update={"provenance": policy.provenance}) == policy
    assert loaded.key == policy.key


def test_id_is_readable() -> None:
    assert RICH.id == "s20-r0.50@6-up_blocks.1i3-g15"


def test_key_ignores_records_and_sees_execution() -> None:
    assert RICH.model_copy(update={"provenance": None, "budget": "40%"}).key == RICH.key
    assert RICH.model_copy(update={"steps": 21}).key != RICH.key


def edited(**changes: Any) -> dict[str, Any]:
    return RICH.to_dict() | changes


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (edited(stepz=3), "unknown key 'stepz'; did you mean 'steps'?"),
        (edited(steps="20"), "steps is '20'"),
        (edited(steps=20.5), "steps is 20.5"),
        (edited(steps=0), "steps is 0"),
        (edited(steps=10**30), "steps is 1000000"),
        (edited(version=2), "policy version 2 is unknown"),
        (edited(format="other"), "not a policy file"),
        (edited(resolution=[{"scale": 1.5, "until_step": 3}]), "resolution.0.scale is 1.5"),
        (edited(resolution=[{"scale": 0.5, "until_step": 20}]), "until_step 20 must lie"),
        (edited(resolution=[{"scale": 0.5, "until_step": 3, "handof": "x"}]), "did you mean 'handoff'?"),
        (
            edited(resolution=[{"scale": 0.75, "until_step": 3}, {"scale": 0.5, "until_step": 5}]),
            "scales must grow",
        ),
        (edited(guidance={"stop_step": 21}), "not an interval"),
        (edited(cache=[{"units": ["a"], "compute_steps": [1, 2]}]), "must begin with 0"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0, 2, 2]}]), "increasing"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0, 20]}]), "step 20 does not exist"),
        (edited(cache=[{"units": [], "compute_steps": [0]}]), "cache.0.units"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0], "mode": "resue"}]), "'reuse'"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0], "mode": "forecast"}]), "order is 1 or 2"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0], "mode": "forecast", "order": 3}]), "cache.0.order is 3"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0], "order": 1}]), "null in mode 'reuse'"),
        ({k: v for k, v in RICH.to_dict().items() if k != "steps"}, "key 'steps' is missing"),
    ],
)
def test_malformed_policies_are_refused_by_name(document: dict[str, Any], says: str) -> None:
    with pytest.raises(PolicyError) as error:
        policy_from_dict(document)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe\x00", b"null", b"[" * 5000, b'{"steps": NaN}', b" " * (MAX_BYTES + 1), b"x" * 10**7],
)
def test_files_that_are_no_policy_are_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(content)
    with pytest.raises(PolicyError, match=r"policy\.json"):
        read_policy(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read"):
        read_policy(tmp_path / "none.json")


def test_an_altered_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    RICH.save(path)
    document = json.loads(path.read_text())
    document["guidance"]["stop_step"] = 14
    path.write_text(json.dumps(document))
    with pytest.raises(PolicyError, match="changed after it was exported"):
        read_policy(path)


def test_a_policy_too_large_to_read_is_not_written(tmp_path: Path) -> None:
    rule = CacheRule(units=tuple(f"up_blocks.{'x' * 150}{i}" for i in range(60)), compute_steps=(0,))
    with pytest.raises(PolicyError, match="at most 8192"):
        Policy(steps=3, cache=(rule,)).save(tmp_path / "policy.json")
    assert list(tmp_path.iterdir()) == []
