"""The values that a policy's fields may hold: types with their limits and the sentence that refuses anything else."""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, WithJsonSchema

from autotune.core.records import LISTED, MAX_TEXT, NAMED, ONE_LINE, Text, in_schema, one_line, shown

MAX_STEPS = 1000
MAX_FACTOR = 10
MAX_TIMESTEP = 100_000
MAX_CONFIG_LIST = 16
MAX_WEIGHTS = 3
MAX_WEIGHT = 1000.0
# Larger whole numbers are not exact in every JSON reader.
MAX_CONFIG_NUMBER = 2**53

_RANGE = re.compile(r"(\d+)-(\d+)")
_NAME = r"\*{1,2}|[A-Za-z0-9_-]+"
_COMPONENT = re.compile(_NAME)
_CLASS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_CONFIG_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,99}")


def _whole(pattern: str) -> str:
    return f"^({pattern})$"


def _unit_form(name: str) -> str:
    """Only the form: which names a denoiser has is for its structure to say."""
    for component in name.split("."):
        if not _COMPONENT.fullmatch(component):
            raise ValueError(
                f"{shown(name)} is no unit, give module names joined by dots, such as 'up_blocks.1', a range"
                " 'transformer_blocks.3-10', or a pattern '**.attn2' ('*' is one name, '**' any number)"
            )
        ends = _RANGE.fullmatch(component)
        if ends and int(ends[2]) < int(ends[1]):
            raise ValueError(f"{shown(name)} is a range that ends before it starts, write {ends[2]}-{ends[1]}")
    return name


def _class_name(name: str) -> str:
    if not _CLASS_NAME.fullmatch(name):
        raise ValueError(f"{shown(name)} is not the name of a class, such as 'DPMSolverMultistepScheduler'")
    return name


def _config_key(key: str) -> str:
    if not _CONFIG_KEY.fullmatch(key):
        raise ValueError("not the name of a scheduler setting, such as 'use_karras_sigmas'")
    return key


def _config_value(value: Any) -> Any:
    if isinstance(value, list | tuple):
        if len(value) > MAX_CONFIG_LIST or not all(_is_config_number(item) for item in value):
            raise ValueError(f"{shown(value)} is not a list of at most {MAX_CONFIG_LIST} finite numbers")
        return tuple(value)
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return one_line(value)
    if value is None or isinstance(value, bool) or _is_config_number(value):
        return value
    raise ValueError(
        f"{shown(value)} is not a short text, true, false, null, a finite number (integers up to"
        f" {MAX_CONFIG_NUMBER}) or a list of at most {MAX_CONFIG_LIST} such numbers"
    )


def _is_config_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= MAX_CONFIG_NUMBER if isinstance(value, int) else math.isfinite(value)


def _ending_in_a_weight(weights: tuple[float, ...]) -> tuple[float, ...]:
    if len(weights) > 1 and weights[-1] == 0:
        raise ValueError(
            f"{shown(list(weights))} ends in a weight of 0, of a result that need not be kept: leave it out"
        )
    return weights


def _kind_of_timesteps(value: Any) -> str | None:
    if isinstance(value, str):
        return NAMED
    return LISTED if isinstance(value, list | tuple) else None


StepIndex = Annotated[int, Field(ge=0, le=MAX_STEPS)]
# Plus zero, for equal policies have equal files.
Weight = Annotated[float, Field(ge=-MAX_WEIGHT, le=MAX_WEIGHT), AfterValidator(lambda weight: weight + 0.0)]
StepWeights = Annotated[
    tuple[Weight, ...],
    Field(strict=False, min_length=1, max_length=MAX_WEIGHTS),
    AfterValidator(_ending_in_a_weight),
]
Pixels = Annotated[int, Field(ge=8, le=16384)]
Integer = Annotated[int, Field(gt=-(2**64), lt=2**64)]
UnitName = Annotated[Text, AfterValidator(_unit_form), in_schema(pattern=_whole(rf"({_NAME})(\.({_NAME}))*"))]
ClassName = Annotated[Text, AfterValidator(_class_name), in_schema(pattern=_whole(_CLASS_NAME.pattern))]
ConfigKey = Annotated[str, AfterValidator(_config_key), in_schema(pattern=_whole(_CONFIG_KEY.pattern))]
ConfigValue = Annotated[
    bool | int | float | str | tuple[int | float, ...] | None,
    BeforeValidator(_config_value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["boolean", "number", "null"]},
                {"type": "string", "maxLength": MAX_TEXT, "pattern": ONE_LINE},
                {"type": "array", "items": {"type": "number"}, "maxItems": MAX_CONFIG_LIST},
            ]
        }
    ),
]
Spacing = Literal["default", "leading", "linspace", "trailing", "karras", "exponential", "beta"]
Timestep = Annotated[int, Field(ge=0, le=MAX_TIMESTEP)]
Sigma = Annotated[float, Field(gt=0)]
Timesteps = Annotated[
    Annotated[Spacing, Tag(NAMED)]
    | Annotated[tuple[Timestep, ...], Field(strict=False, max_length=MAX_STEPS), Tag(LISTED)],
    Discriminator(
        _kind_of_timesteps,
        custom_error_type="timesteps",
        custom_error_message="should be " + ", ".join(map(repr, get_args(Spacing))) + " or a list of timesteps",
    ),
]
