"""The policy file: what is written is read back, and nothing malformed gets through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from autotune.core.errors import PolicyError
from autotune.policy import (
    MAX_BYTES,
    MAX_ID,
    CacheRule,
    Certificate,
    Guidance,
    Policy,
    Provenance,
    ResolutionStage,
    SchedulerChoice,
    policy_from_dict,
    read_policy,
)
from tests.support.strategies import RECORDS
from tests.support.strategies import policies as policies

RICH = Policy(
    steps=20,
    resolution=(ResolutionStage(scale=0.5, until_step=6),),
    guidance=Guidance(stop_step=15),
    cache=(CacheRule(units=("up_blocks.1",), compute_steps=(0, 3, 6, 9, 12, 15, 18)),),
    provenance=Provenance(study="s", trial=3, seed=0, date="2026-01-01", versions={"torch": "2"}),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(policy=policies(everything=True))
def test_what_is_saved_is_loaded(policy: Policy, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    policy.save(path)
    loaded = read_policy(path)
    assert loaded.model_copy(update={"provenance": policy.provenance}) == policy
    assert loaded.key == policy.key


def rule(*units: str, mode: Any = "reuse", order: int | None = None) -> CacheRule:
    return CacheRule(units=units, mode=mode, order=order, compute_steps=(0, 2))


def weighted(*units: str, mode: Any = "forecast", weights: Any = ((0.9,), (1.4, -0.3))) -> CacheRule:
    """Of four steps."""
    return CacheRule(units=units, mode=mode, compute_steps=(0, 2), weights=weights)


RATED = Policy(version=3, steps=9, guidance=Guidance(start_step=1, stop_step=8, compute_steps=(1, 4, 7)))
SOLVER = SchedulerChoice(name="DPMSolverMultistepScheduler", config={"solver_order": 2})


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (RICH, "s20-r0.50@6-up_blocks.1i3-g15"),
        (Policy(steps=4, scheduler=SOLVER, timesteps="karras"), "s4@DPMSolverMultistep-ts-karras"),
        (Policy(steps=3, timesteps=(999, 500, 0)), "s3-ts-list"),
        (Policy(steps=3, sigmas=(1.0, 0.5, 0.25)), "s3-sigmas"),
        (
            Policy(steps=4, resolution=(ResolutionStage(scale=0.5, until_step=2, handoff="noise_matched"),)),
            "s4-r0.50@2~",
        ),
        (Policy(steps=4, guidance=Guidance(stop_step=2, after="cross_attention")), "s4-g2+ca"),
        (Policy(steps=4, guidance=Guidance(start_step=1, stop_step=4)), "s4-g1_4"),
        (RATED, "s9-g1_8i3"),
        (Policy(version=3, steps=9, guidance=Guidance(stop_step=8, compute_steps=(0, 1, 4))), "s9-g8n3"),
        (Policy(version=4, steps=7, guidance=Guidance(start_step=3, stop_step=6, factor=1.5)), "s7-g3_6x1.5"),
        (
            Policy(version=3, steps=9, guidance=Guidance(stop_step=8, compute_steps=(0,), after="cross_attention")),
            "s9-g8n1+ca",
        ),
        (Policy(steps=4, cache=(rule("blocks.3-10", mode="residual"),)), "s4-blocks.3-10i2x"),
        (Policy(version=2, steps=4, cache=(rule("blocks.3-10", mode="residual", order=1),)), "s4-blocks.3-10i2xf1"),
        (Policy(version=3, steps=4, cache=(weighted("b"),)), "s4-bi2w2"),
        (Policy(version=3, steps=4, cache=(weighted("b", mode="residual"),)), "s4-bi2xw2"),
        (Policy(steps=4, cache=(rule("**.attn2", "b.*.ff", mode="forecast", order=1),)), "s4-all.attn2+b.each.ffi2f1"),
    ],
)
def test_id_is_readable(policy: Policy, expected: str) -> None:
    assert policy.id == expected


def test_a_long_id_ends_in_a_hash_that_tells_policies_apart() -> None:
    names = tuple(f"transformer_blocks.{index}.attn1" for index in range(30))
    one, other = (Policy(steps=4, cache=(rule(*names[:count]),)) for count in (29, 30))
    assert len(one.id) == len(other.id) == MAX_ID
    assert one.id != other.id
    assert one.id.startswith("s4-transformer_blocks.0.attn1+") and one.id.endswith(one.key[:8])


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 21},
        {"scheduler": SOLVER},
        {"scheduler": SchedulerChoice(name="DPMSolverMultistepScheduler")},
        {"timesteps": "karras"},
        {"timesteps": tuple(range(20, 0, -1))},
        {"sigmas": tuple(float(sigma) for sigma in range(20, 0, -1))},
        {"guidance": Guidance(stop_step=15, after="cross_attention")},
        {"guidance": Guidance(stop_step=15, compute_steps=(0, 3))},
        {"guidance": Guidance(stop_step=15, factor=1.25)},
        {"resolution": (ResolutionStage(scale=0.5, until_step=6, handoff="noise_matched"),)},
        {"cache": (RICH.cache[0].model_copy(update={"mode": "residual"}),)},
    ],
)
def test_key_sees_what_is_executed(changes: dict[str, Any]) -> None:
    assert RICH.model_copy(update=changes).key != RICH.key


def test_key_sees_weights() -> None:
    keys = {
        Policy(version=3, steps=4, cache=(weighted("a", weights=weights),)).key
        for weights in (((0.9,), (1.4, -0.3)), ((0.9,), (1.4,)), ((0.9,), (1.4, 0.3)))
    }
    assert len(keys) == 3


def test_equal_weights_have_one_form() -> None:
    one, other = (
        Policy(version=3, steps=4, cache=(weighted("a", weights=weights),))
        for weights in (((0.0,), (1, -1)), ((-0.0,), (1.0, -1.0)))
    )
    assert one.to_text() == other.to_text() and one.key == other.key


def test_guidance_that_computes_both_branches_throughout_says_nothing_of_it() -> None:
    whole = Guidance(start_step=1, stop_step=4, compute_steps=(1, 2, 3))
    assert whole == Guidance(start_step=1, stop_step=4)
    assert Policy(steps=4, guidance=whole).to_dict()["guidance"] == {
        "start_step": 1,
        "stop_step": 4,
        "after": "nothing",
    }
    assert RATED.to_dict()["guidance"]["compute_steps"] == [1, 4, 7]


def test_guidance_that_adds_what_it_adds_says_nothing_of_it() -> None:
    same = Guidance(start_step=1, stop_step=4, factor=1.0)
    assert same == Guidance(start_step=1, stop_step=4)
    assert "factor" not in Policy(steps=4, guidance=same).to_dict()["guidance"]
    more = Policy(version=4, steps=4, guidance=Guidance(stop_step=3, factor=1.5))
    assert more.to_dict()["guidance"]["factor"] == 1.5
    assert policy_from_dict(more.to_dict()) == more


def test_key_ignores_records() -> None:
    assert RICH.model_copy(update={"provenance": None, "budget": "40%"}).key == RICH.key


# As the release before 'scheduler' and 'sigmas' wrote it.
EARLIER = """{
  "format": "postdiff-policy",
  "version": 1,
  "model": null,
  "steps": 20,
  "timesteps": "default",
  "resolution": [{"scale": 0.5, "until_step": 6, "handoff": "renoise"}],
  "guidance": {"start_step": 0, "stop_step": 15, "after": "nothing"},
  "cache": [{"units": ["up_blocks.1"], "mode": "forecast", "order": 2, "compute_steps": [0, 3, 6, 9, 12, 15, 18]}],
  "budget": null,
  "cost": null,
  "quality": null,
  "provenance": {"study": "s", "trial": 3, "seed": 0, "date": "2026-01-01", "versions": {"torch": "2"},
    "checksum": "b15d937a7a83d7be"}
}
"""


def test_earlier_files_keep_their_checksum_and_key(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(EARLIER)
    policy = read_policy(path)
    assert policy.key == "059e32d4a271772a"
    policy.save(path)
    assert read_policy(path).key == policy.key


def edited(**changes: Any) -> dict[str, Any]:
    return RICH.to_dict() | changes


def cached(**changes: Any) -> dict[str, Any]:
    return edited(cache=[{"units": ["a"], "compute_steps": [0]} | changes])


def weighing(weights: Any, **changes: Any) -> dict[str, Any]:
    """A policy of four steps and no records with weights."""
    rule = {"units": ["a"], "mode": "forecast", "compute_steps": [0, 2], "weights": weights}
    others = {key: changes.pop(key) for key in ("version", "resolution", "guidance") if key in changes}
    return {"format": "postdiff-policy", "version": 3, "steps": 4, "cache": [rule | changes]} | others


STAGE = [{"scale": 0.5, "until_step": 1}]


def rated(**changes: Any) -> dict[str, Any]:
    return edited(version=3, guidance={"stop_step": 4} | changes)


def configured(**config: Any) -> dict[str, Any]:
    return edited(scheduler={"name": "DDIMScheduler", "config": config})


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (edited(stepz=3), "unknown key 'stepz'; did you mean 'steps'?"),
        (edited(steps="20"), "steps is '20'"),
        (edited(steps=20.5), "steps is 20.5"),
        (edited(steps=0), "steps is 0"),
        (edited(steps=10**30), "steps is 1000000"),
        (edited(version=5), "policy version 5 is unknown, this release reads 1, 2, 3 and 4"),
        (edited(format="other"), "not a policy file"),
        (edited(resolution=[{"scale": 1.5, "until_step": 3}]), "resolution.0.scale is 1.5"),
        (edited(resolution=[{"scale": 0.5, "until_step": 20}]), "until_step 20 must lie"),
        (edited(resolution=[{"scale": 0.5, "until_step": 3, "handof": "x"}]), "did you mean 'handoff'?"),
        (
            edited(resolution=[{"scale": 0.75, "until_step": 3}, {"scale": 0.5, "until_step": 5}]),
            "scales must grow",
        ),
        (edited(guidance={"stop_step": 21}), "not an interval"),
        (edited(guidance={"stop_step": 4, "compute_steps": [0, 2]}), "guidance.compute_steps: guidance has them from"),
        (
            edited(guidance={"stop_step": 4, "factor": 1.5}),
            "guidance.factor: guidance has one from version 4",
        ),
        (edited(version=4, guidance={"stop_step": 4, "factor": 0}), "guidance.factor is 0"),
        (edited(version=4, guidance={"stop_step": 4, "factor": 11}), "guidance.factor is 11"),
        (rated(start_step=1, compute_steps=[0, 2]), "must begin with start_step 1, not with 0"),
        (rated(compute_steps=[0, 2, 2]), "guidance: compute_steps must be increasing, each step once: 2 follows 2"),
        (rated(compute_steps=[0, 4]), "step 4 has no guidance, which runs in [0, 4)"),
        (rated(compute_steps=[]), "guidance.compute_steps is []"),
        (edited(cache=[{"units": ["a"], "compute_steps": [1, 2]}]), "must begin with 0"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0, 2, 2]}]), "increasing"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0, 20]}]), "step 20 does not exist"),
        (edited(cache=[{"units": [], "compute_steps": [0]}]), "cache.0.units"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0], "mode": "resue"}]), "'reuse'"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0], "mode": "forecast"}]), "order is 1 or 2"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0], "mode": "forecast", "order": 3}]), "cache.0.order is 3"),
        (edited(cache=[{"units": ["a"], "compute_steps": [0], "order": 1}]), "null in mode 'reuse'"),
        ({k: v for k, v in RICH.to_dict().items() if k != "steps"}, "key 'steps' is missing"),
        (edited(steps=True), "steps is true: input should be a valid integer"),
        (edited(steps=None), "steps is null"),
        (edited(steps=float("nan")), "steps is nan"),
        (edited(steps=10**5000), "steps is a number of thousands of digits"),
        (edited(**{"\ud800": 1}), "a key is '\\ud800': input should be a valid string"),
        (edited(**{"x" * 10**6: 1}), "unknown key 'xxx"),
        (edited(version=True), "policy version true is unknown"),
        (edited(version=1.0), "policy version 1.0 is unknown"),
        (edited(resolution=[{"scale": 0.5, "until_step": 3, "handoff": "noise"}]), "'renoise' or 'noise_matched'"),
        (edited(resolution={}), "resolution is {}: should be a list"),
        (edited(guidance=7), "guidance is 7: should be an object in braces"),
        (edited(guidance={"stop_step": 20, "after": "cross_attention"}), "a stop_step of at most 19"),
        (edited(guidance={"stop_step": 2, "after": "attention"}), "'nothing' or 'cross_attention'"),
        (cached(units=["a"], mode="reuse", order=1), "null in mode 'reuse'"),
        (cached(units=["a"], mode="residual", order=1), "cache.0.order: mode 'residual' has one from version 2 on"),
        (weighing([[1], [1]], version=2), "cache.0.weights: a rule has them from version 3 on, say so in version"),
        (weighing([[1], [1]], mode="reuse"), "weights do not go with mode 'reuse'"),
        (weighing([[1], [1]], order=1), "order 1 and weights both say how results are extrapolated"),
        (weighing([[1]]), "cache.0.weights: 1 lists for 2 steps that are not in compute_steps"),
        (weighing([[1], [1], [1]]), "cache.0.weights: 3 lists for 2 steps"),
        (weighing([[1, 2], [1]]), "cache.0.weights: 2 for step 1, before which the units have computed 1 result: give"),
        (weighing([[1], [1, 2, 3]]), "cache.0.weights: 3 for step 3, before which the units have computed 2 results"),
        (weighing([[1], [1, 2, 3, 4]]), "cache.0.weights.1"),
        (weighing([[1], []]), "cache.0.weights.1"),
        (weighing([[1], [1, 0]]), "[1.0, 0.0] ends in a weight of 0"),
        (weighing([[1], [1000.5]]), "cache.0.weights.1.0 is 1000.5"),
        (weighing([[1], [float("nan")]]), "cache.0.weights.1.0 is nan"),
        (weighing([[1], ["1"]]), "cache.0.weights.1.0 is '1'"),
        (weighing([1, 1]), "cache.0.weights.0 is 1: should be a list"),
        (
            weighing([[1], [1]], guidance={"stop_step": 4, "compute_steps": [0, 2]}),
            "cache.0.weights: they go with guidance that computes both branches in all of its steps",
        ),
        (weighing([[1], [1]], resolution=STAGE), "cache.0.compute_steps: with weights they list step 1 too"),
        (
            weighing([[1], [1]], guidance={"start_step": 1, "stop_step": 4}),
            "compute_steps: with weights they list step 1 too",
        ),
        (
            weighing([[1], [1, 1]], resolution=[{"scale": 0.5, "until_step": 2}]),
            "2 for step 3, before which the units have computed 1 result since step 2",
        ),
        (cached(units=["a.10-3"]), "cache.0.units.0: 'a.10-3' is a range that ends before it starts, write 3-10"),
        (cached(units=["a", "b c"]), "cache.0.units.1: 'b c' is no unit"),
        (cached(units=["a..b"]), "'a..b' is no unit"),
        (cached(units=["a*"]), "'a*' is no unit"),
        (cached(units=["***"]), "'***' is no unit"),
        (cached(units=[""]), "'' is no unit"),
        (edited(timesteps="karas"), "timesteps is 'karas': input should be 'default', 'leading', 'linspace'"),
        (edited(timesteps=7), "'beta' or a list of timesteps"),
        (edited(timesteps=[3, 2, 1]), "timesteps: 3 values for 20 steps"),
        (edited(timesteps=[500, *range(500, 481, -1)]), "timesteps.1 is 500: must be below the 500 before it"),
        (edited(timesteps=[100_001, *range(19, 0, -1)]), "timesteps.0 is 100001"),
        (edited(timesteps=[*range(19, 0, -1), -1]), "timesteps.19 is -1"),
        (edited(timesteps=[*range(20, 1, -1), True]), "timesteps.19 is true"),
        (edited(timesteps=[*range(20, 1, -1), 0.5]), "timesteps.19 is 0.5"),
        (edited(sigmas=[*range(19, -1, -1)]), "sigmas.19 is 0: input should be greater than 0"),
        (edited(sigmas=[float("inf"), *range(19, 0, -1)]), "sigmas.0 is inf: input should be a finite number"),
        (edited(sigmas=[*range(1, 21)]), "sigmas.1 is 2: must be below the 1 before it"),
        (edited(sigmas=[*range(19, 0, -1)]), "sigmas: 19 values for 20 steps"),
        (edited(sigmas=[*range(20, 0, -1)], timesteps=[*range(20, 0, -1)]), "sigmas: given together with timesteps"),
        (edited(sigmas=[*range(20, 0, -1)], timesteps="karras"), "sigmas: given together with timesteps 'karras'"),
        (edited(scheduler="DDIM"), "scheduler is 'DDIM'"),
        (edited(scheduler={"name": "DDIM", "confg": {}}), "unknown key 'scheduler.confg'; did you mean 'config'?"),
        (edited(scheduler={"name": "a/b"}), "scheduler.name: 'a/b' is not the name of a class"),
        (configured(_class_name="x"), "scheduler.config._class_name: not the name of a scheduler setting"),
        (configured(a={}), "scheduler.config.a: {} is not a short text"),
        (configured(a=float("nan")), "scheduler.config.a: nan is not"),
        (configured(a=2**53 + 1), "integers up to 9007199254740992"),
        (configured(a=[[1]]), "[[1]] is not a list of at most 16 finite numbers"),
        (configured(a=[True]), "[True] is not a list"),
        (configured(a=[0] * 17), "is not a list of at most 16"),
        (configured(a="b\nc"), "line break"),
        (configured(**{f"a{index}": 0 for index in range(33)}), "at most 32"),
        (edited(budget="40%\n"), "budget: '40%\\n' holds a line break"),
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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"steps": 3, "steps": 4}', "key 'steps' is there twice"),
        ('{"guidance": {"after": 1, "after": 1}}', "key 'after' is there twice"),
        ('{"steps": 3,}', "at line 1, column "),
        ("[" * 8000, "nested too deeply"),
        ("[1]", "holds no JSON object"),
        (EARLIER.replace('"steps": 20', '"steps": 1e400'), "steps is 1e400: input should be a valid integer"),
        (EARLIER.replace('"steps": 20', '"steps": -Infinity'), "steps is -Infinity"),
        (EARLIER.replace('"steps": 20', '"steps": ' + "9" * 5000), "steps is 999999999999... (5000 digits)"),
        (EARLIER.replace('"scale": 0.5', '"scale": NaN'), "resolution.0.scale is NaN: input should be a valid number"),
        (EARLIER.replace('"budget": null', '"budget": NaN'), "budget is NaN: input should be a valid string"),
    ],
)
def test_texts_that_are_no_policy_are_refused_by_name(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(text)
    with pytest.raises(PolicyError) as error:
        read_policy(path)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_files_of_other_encodings_are_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(EARLIER, encoding="utf-16")
    with pytest.raises(PolicyError, match="not UTF-8"):
        read_policy(path)
    path.write_text(EARLIER, encoding="utf-8-sig")
    assert read_policy(path).steps == 20


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
    large = CacheRule(units=tuple(f"up_blocks.{'x' * 150}{i}" for i in range(60)), compute_steps=(0,))
    with pytest.raises(PolicyError, match="at most 8192"):
        Policy(steps=3, cache=(large,)).save(tmp_path / "policy.json")
    assert list(tmp_path.iterdir()) == []


def test_a_measured_error_is_of_version_2_and_files_without_one_do_not_know_it(tmp_path: Path) -> None:
    quality = RECORDS["quality"]
    assert "error" not in json.dumps(Policy(steps=20, quality=quality).to_dict())
    erring = quality.policy.model_copy(update={"error": quality.difference})
    measured = quality.model_copy(update={"policy": erring})
    with pytest.raises(ValueError, match="or with an error, it is of version 2"):
        Policy(steps=20, quality=measured)
    policy = Policy(steps=20, version=2, quality=measured)
    policy.save(tmp_path / "policy.json")
    read = read_policy(tmp_path / "policy.json")
    assert read.quality is not None and read.quality.policy.error == quality.difference
    assert read.quality.full.error is None


def test_files_without_weights_do_not_know_them() -> None:
    assert "weights" not in json.dumps(RICH.to_dict())


def test_three_weights_a_step_fit_into_a_file_of_fifty_steps(tmp_path: Path) -> None:
    rule = CacheRule(
        units=("transformer_blocks.0-27",),
        mode="residual",
        compute_steps=(0, 1, 2, *range(6, 42, 4)),
        weights=((12.34567, -10.76543, -0.98765),) * 38,
    )
    policy = Policy(version=3, steps=50, cache=(rule,) * 3, **RECORDS)
    policy.save(tmp_path / "policy.json")
    assert read_policy(tmp_path / "policy.json").key == policy.key


def test_certificates_are_of_version_2_alone() -> None:
    quality = RECORDS["quality"]
    assert "certificate" not in json.dumps(Policy(steps=20, quality=quality).to_dict())
    seen = Certificate(max_loss=0.1, max_change=None, loss=quality.difference, change=None, level=0.97)
    certified = quality.model_copy(update={"certificate": seen})
    again = policy_from_dict(Policy(version=2, steps=20, quality=certified).to_dict())
    assert again.quality is not None and again.quality.certificate == seen
    with pytest.raises(ValueError, match="so it is with a certificate; say so in version"):
        Policy(steps=20, quality=certified)


def test_fewer_steps_of_another_solver_are_named_in_version_2_alone() -> None:
    quality = RECORDS["quality"]
    assert "fewer_steps_policy" not in json.dumps(Policy(steps=20, quality=quality).to_dict())
    named = quality.model_copy(update={"fewer_steps_policy": "s8@DDIM"})
    again = policy_from_dict(Policy(version=2, steps=20, quality=named).to_dict())
    assert again.quality is not None and again.quality.fewer_steps_policy == "s8@DDIM"
    with pytest.raises(ValueError, match="with fewer_steps_policy or with an error, it is of version 2"):
        Policy(steps=20, quality=named)
