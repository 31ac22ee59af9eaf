"""The JSON Schema of policies takes what the package takes, and refuses what is wrong in form."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, assume, given, settings
from pydantic import ValidationError
from pydantic_core import ErrorDetails

import autotune
from autotune.policy import Policy, policy_from_dict
from autotune.policy.schema import DESCRIPTIONS, policy_schema
from tests.support.strategies import EXAMPLES, mutated_documents, policies

SCHEMA = policy_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
SUPPRESSED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much]
FULL = EXAMPLES[1].to_dict()
CACHED = EXAMPLES[2].to_dict()
WEIGHED = EXAMPLES[5].to_dict()
# What only the whole of a document decides: the validators of records, and Python's own numbers and texts.
BEYOND = {"value_error", "int_type", "string_unicode", "bool_type"}


def test_it_is_a_schema_that_names_its_dialect_and_itself() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMA["$id"] == "urn:postdiff-policy:4"
    assert SCHEMA["title"] and SCHEMA["description"]


def test_every_field_is_described() -> None:
    assert {record.__name__ for record in DESCRIPTIONS} == {"Policy", *SCHEMA["$defs"]}
    for record, descriptions in DESCRIPTIONS.items():
        assert set(descriptions) == set(record.model_fields), record.__name__


def test_the_command_prints_it_without_torch() -> None:
    script = (
        "import sys; from autotune.cli import run; code = run(['schema']);"
        "sys.exit(code or 'torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout) == SCHEMA


@pytest.mark.parametrize("policy", EXAMPLES, ids=lambda policy: policy.id)
def test_policies_validate(policy: Policy) -> None:
    VALIDATOR.validate(as_json(policy.to_dict()))


def test_a_saved_policy_validates(tmp_path: Any) -> None:
    EXAMPLES[4].save(tmp_path / "policy.json")
    VALIDATOR.validate(json.loads((tmp_path / "policy.json").read_text()))


@settings(deadline=None, max_examples=60)
@given(policy=policies(everything=True))
def test_drawn_policies_validate(policy: Policy) -> None:
    VALIDATOR.validate(as_json(policy.to_dict()))


@settings(deadline=None, max_examples=400, suppress_health_check=SUPPRESSED, phases=[Phase.generate])
@given(document=mutated_documents())
def test_it_agrees_with_the_package_on_form(document: dict[Any, Any]) -> None:
    try:
        document = as_json(document)
    except (ValueError, TypeError, RecursionError):
        assume(False)  # No JSON file holds it.
    valid = VALIDATOR.is_valid(document)
    try:
        policy_from_dict(document)
    except autotune.errors.PolicyError:
        assert not valid or beyond_form(document), document
    else:
        assert valid, next(VALIDATOR.iter_errors(document))


@pytest.mark.parametrize(
    ("document", "change"),
    [
        pytest.param(document, change, id=".".join(map(str, change[0])) + f"={change[1]}"[:24])
        for document, change in [
            (FULL, (["stepz"], 3)),
            (FULL, (["steps"], "6")),
            (FULL, (["steps"], 0)),
            (FULL, (["steps"], 1001)),
            (FULL, (["format"], "another")),
            (FULL, (["version"], 5)),
            (FULL, (["guidance", "compute_steps"], [0, 2, 2])),
            (FULL, (["guidance", "factor"], 0)),
            (FULL, (["timesteps"], "cosine")),
            (FULL, (["model", "height"], 4)),
            (FULL, (["model", "pipeline"], "a\nb")),
            (FULL, (["guidance", "after"], "everything")),
            (FULL, (["cost", "relative"], -0.1)),
            (FULL, (["quality", "weights"], {"a\nb": 1.0})),
            (FULL, (["provenance", "versions"], {"torch": 2})),
            (CACHED, (["cache", 0, "units"], [])),
            (CACHED, (["cache", 0, "units", 0], "up blocks")),
            (CACHED, (["cache", 0, "mode"], "recall")),
            (CACHED, (["cache", 0, "order"], 1)),
            (CACHED, (["cache", 0, "compute_steps", 0], 1)),
            (CACHED, (["cache", 0, "compute_steps"], [0, 2, 2])),
            (CACHED, (["cache", 0, "weights"], [[1.0]] * 3)),
            (WEIGHED, (["cache", 0, "mode"], "reuse")),
            (WEIGHED, (["cache", 0, "order"], 1)),
            (WEIGHED, (["cache", 0, "weights"], None)),
            (WEIGHED, (["cache", 0, "weights", 0], [])),
            (WEIGHED, (["cache", 0, "weights", 0], 1.0)),
            (WEIGHED, (["cache", 0, "weights", 0, 0], 1001)),
            (WEIGHED, (["cache", 0, "weights", 0, 0], "1")),
            (CACHED, (["sigmas"], [6.0, 5.0, 4.0, 3.0, 2.0, 1.0])),
            (CACHED, (["scheduler"], {"name": "DDIM Scheduler"})),
            (CACHED, (["scheduler"], {"name": "DDIMScheduler", "config": {"9": 1}})),
            (CACHED, (["scheduler"], {"name": "DDIMScheduler", "config": {"a": [1, "2"]}})),
        ]
    ],
)
def test_what_is_wrong_in_form_is_refused_by_both(document: dict[str, Any], change: tuple[list[Any], Any]) -> None:
    (*parents, last), value = change
    changed = deepcopy(as_json(document))
    holder: Any = changed
    for key in parents:
        holder = holder[key]
    holder[last] = value
    assert not VALIDATOR.is_valid(changed)
    with pytest.raises(autotune.errors.PolicyError):
        policy_from_dict(changed)


@pytest.mark.parametrize("key", ["format", "version", "steps"])
def test_what_must_be_there_is_missed_by_both(key: str) -> None:
    document = {name: value for name, value in as_json(FULL).items() if name != key}
    assert not VALIDATOR.is_valid(document)
    with pytest.raises(autotune.errors.PolicyError):
        policy_from_dict(document)


def as_json(document: dict[Any, Any]) -> dict[str, Any]:
    """What a file of the document holds."""
    found: dict[str, Any] = json.loads(json.dumps(document, allow_nan=False))
    return found


def beyond_form(document: dict[str, Any]) -> bool:
    """Whether the refusal is for something that no schema of the form can say."""
    try:
        Policy.model_validate(document)
    except ValidationError as error:
        return all(problem["type"] in BEYOND or _is_huge(problem) for problem in error.errors())
    return True  # The checksum.


def _is_huge(problem: ErrorDetails) -> bool:
    """Whether an integer of JSON's is beyond what a float holds."""
    return problem["type"] == "float_type" and isinstance(problem["input"], int)
