"""Files of several policies: strict, small, and read as they were written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import autotune
from autotune.core.errors import PolicyError
from autotune.policy import MAX_BYTES, CacheRule, Policy, PolicySet, load_policies
from autotune.policy.hub import set_card
from autotune.policy.schema import policies_schema
from tests.support.fake_hub import Hub, running, with_hub
from tests.support.strategies import EXAMPLES

# One with a model, all records and a checksum once it is saved.
MEASURED = EXAMPLES[1]
TIERS = {"high": MEASURED, "draft": Policy(steps=4)}
SCHEMA = jsonschema.Draft202012Validator(policies_schema())


def saved(folder: Path) -> tuple[Path, dict[str, Any]]:
    path = folder / "policies.json"
    PolicySet(tiers=TIERS).save(path)
    return path, json.loads(path.read_text())


def test_a_set_is_read_as_it_was_written(tmp_path: Path) -> None:
    path, document = saved(tmp_path)
    found = load_policies(path)
    assert list(found.tiers) == ["high", "draft"]
    assert {name: policy.key for name, policy in found.tiers.items()} == {n: p.key for n, p in TIERS.items()}
    assert found.tiers["high"].quality == MEASURED.quality and found.tiers["high"].cost == MEASURED.cost
    assert load_policies(document) == found and load_policies(found.to_dict()) == found
    assert path.stat().st_size <= MAX_BYTES * 2
    assert [each.name for each in tmp_path.iterdir()] == ["policies.json"]


def test_the_schema_takes_what_is_written(tmp_path: Path) -> None:
    jsonschema.Draft202012Validator.check_schema(policies_schema())
    _, document = saved(tmp_path)
    SCHEMA.validate(document)
    SCHEMA.validate(json.loads(json.dumps(PolicySet(tiers=TIERS).to_dict())))


def changed(document: dict[str, Any], *path: str, to: Any) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(document))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = to
    return copy


@pytest.mark.parametrize(
    ("path", "value", "words", "in_form"),
    [
        (("version",), 2, "version 2 of policy sets is unknown, this release reads 1", False),
        (("format",), "postdiff-policy", r"its 'format' is not 'postdiff-policies' \(it is that of a single", False),
        (("tiers",), {}, "tiers", False),
        (("tiers",), [], "tiers is .*should be an object in braces", False),
        (("tiers", "draft"), 4, "tier 'draft' is 4: should be a policy", False),
        (("tiers", "full"), {"format": "postdiff-policy", "version": 1, "steps": 4}, "'full' is the full run", False),
        (("tiers", "A B"), {"format": "postdiff-policy", "version": 1, "steps": 4}, "'A B' is no name for", False),
        (("default",), "high", "unknown key 'default'", False),
        (("tiers", "draft", "stepz"), 3, "tier draft: unknown key 'stepz'; did you mean 'steps'", False),
        (("tiers", "high", "steps"), 7, "tier high: changed after it was exported", True),
    ],
)
def test_what_is_wrong_is_refused_in_a_sentence(
    path: tuple[str, ...], value: Any, words: str, in_form: bool, tmp_path: Path
) -> None:
    document = changed(saved(tmp_path)[1], *path, to=value)
    with pytest.raises(PolicyError, match=words):
        load_policies(document)
    # What a checksum says is beyond the form.
    assert SCHEMA.is_valid(document) == in_form


def test_policies_for_two_models_are_no_set() -> None:
    assert MEASURED.model is not None
    other = MEASURED.model.model_copy(update={"denoiser_fingerprint": "another"})
    with pytest.raises(PolicyError, match="'draft' was made for another model than 'high': its denoiser fingerprint"):
        PolicySet.of({"high": MEASURED, "draft": Policy(steps=4, model=other)})


def test_a_tier_that_is_too_large_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    names = tuple(f"some.very.long.name.of.a.module.number.{number:03d}" for number in range(64))
    rules = tuple(CacheRule(units=names[place : place + 32], compute_steps=(0,)) for place in (0, 32))
    many = Policy(steps=999, cache=rules, timesteps=tuple(range(999, 0, -1)))
    with pytest.raises(PolicyError, match="a policy file holds at most 8192"):
        PolicySet(tiers={"draft": many}).save(tmp_path / "policies.json")
    assert not [*tmp_path.iterdir()]


def test_one_kind_of_file_is_not_taken_for_the_other(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    with pytest.raises(PolicyError, match="it holds several: name one of its tiers, or use load_policies"):
        autotune.load_policy(path)


@pytest.fixture
def hub() -> Any:
    with running() as server:
        yield server


def test_a_set_comes_back_from_the_hub_as_it_went(hub: Hub, tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    script = (
        "import sys, autotune\n"
        "tiers = autotune.load_policies('policies.json')\n"
        "tiers.push_to_hub('user/repo', token='secret')\n"
        "assert autotune.load_policies('user/repo') == tiers\n"
        "assert 'torch' not in sys.modules"
    )
    process = with_hub(hub, tmp_path, script)
    assert process.returncode == 0, process.stderr
    assert hub.message == "Policies high, draft"
    assert hub.files["policies.json"] == path.read_bytes()
    card = hub.files["README.md"].decode()
    assert card == set_card(load_policies(path).tiers, "user/repo")
    assert "| high | 40.0% | " in card and 'autotune.tier(pipe, "draft")' in card
