"""What a pipeline takes of the inputs it is given: known, complete, one value a call where it takes one."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autotune.core.errors import InputError, did_you_mean
from autotune.core.records import shown
from autotune.evaluation.inputs import CLASS, PROMPT, Inputs, Row, differs_by_row, plain
from autotune.pipelines.families import CallSignature, family_of
from autotune.runtime.strength import STRENGTH

# What the tuner itself gives a call, or what no file can hold; and where else it can be said.
_OWN = re.compile(
    r"generator|latents|batch_size|num_images_per_prompt|output_type|return_dict|callback\w*|mu|timesteps|sigmas"
    r"|denoising_start|denoising_end|\w+_embeds|\w+_attention_mask|masked_image_latents|height|width|num_inference_steps"
)
_ELSEWHERE = {"height": "height", "width": "width", "num_inference_steps": "steps"}


def accepted(pipe: Any, rows: Sequence[Row] | None) -> Inputs:
    """Inputs as the pipeline takes them.

    Args:
        pipe: The pipeline.
        rows: Of one kind. None is all classes of a class-conditional model, and seeds of an unconditional one.

    Raises:
        InputError: one sentence names what is unknown, missing, out of range, or different where it may not be.
    """
    signature = family_of(pipe).call_signature(pipe)
    name = type(pipe).__name__
    if signature.rows_argument not in signature.takes:
        raise InputError(f"{name} takes no {signature.rows_argument}, so its pictures cannot be made in batches")
    if rows is None:
        rows = _of_all_classes(pipe, signature) if signature.classes is not None else (Row(),)
    given = rows[0].arguments
    _check_names(name, given, signature)
    _check_complete(name, given, signature)
    _check_classes(name, rows, signature)
    call = {argument: _one_value(argument, rows) for argument in given if not differs_by_row(argument)}
    _check_strength(call)
    if signature.conditioning == "none":
        return Inputs((), call)
    titles = _class_names(pipe)
    return Inputs(tuple(_trimmed(row, call, titles) for row in rows), call)


def _of_all_classes(pipe: Any, signature: CallSignature) -> tuple[Row, ...]:
    return tuple(Row({CLASS: number}) for number in range(signature.classes or 0))


def _trimmed(row: Row, call: Mapping[str, Any], titles: Mapping[int, str]) -> Row:
    """A row without what all share, called as the model calls its class."""
    title = titles.get(row.arguments.get(CLASS, -1))
    label = f"class {row.arguments[CLASS]}: {title}" if title else row.name
    return Row({name: value for name, value in row.arguments.items() if name not in call}, label)


def _class_names(pipe: Any) -> dict[int, str]:
    """What the model's config calls its classes, if it does."""
    named = getattr(pipe, "config", {}).get("id2label") or {}
    return {int(number): str(title) for number, title in named.items()}


def _check_names(pipeline: str, given: Mapping[str, Any], signature: CallSignature) -> None:
    valid = {CLASS if name == "class_labels" else name for name in signature.takes if not _OWN.fullmatch(name)}
    for name in given:
        if name in valid:
            continue
        if _OWN.fullmatch(name) and name in signature.takes:
            where = f"; give {_ELSEWHERE[name]} apart" if name in _ELSEWHERE else "; leave it out"
            raise InputError(f"inputs: {name!r} is the tuner's to set{where}")
        raise InputError(f"inputs: {pipeline} takes no {name!r}{did_you_mean(name, valid)}")


def _check_complete(pipeline: str, given: Mapping[str, Any], signature: CallSignature) -> None:
    needed = {"prompt": (PROMPT,), "class": (CLASS,), "none": ()}[signature.conditioning]
    for name in (*needed, *signature.pictures):
        if name not in given:
            raise InputError(f"inputs: {pipeline} needs {name!r}; give it with every input, in a file for --inputs")


def _check_classes(pipeline: str, rows: Sequence[Row], signature: CallSignature) -> None:
    if signature.classes is None or CLASS not in rows[0].arguments:
        return
    for row in rows:
        if not 0 <= row.arguments[CLASS] < signature.classes:
            raise InputError(
                f"inputs: class_label {row.arguments[CLASS]} is none of {pipeline}'s; give one from 0 to"
                f" {signature.classes - 1}"
            )


def _one_value(name: str, rows: Sequence[Row]) -> Any:
    first, *others = (row.arguments[name] for row in rows)
    for other in others:
        if other != first:
            raise InputError(
                f"inputs: {name} is {_text(name, first)} in one and {_text(name, other)} in another, and a call takes"
                " one for all its pictures; give all inputs the same"
            )
    return first


def _text(name: str, value: Any) -> str:
    return shown(plain({name: value})[name])


def _check_strength(call: Mapping[str, Any]) -> None:
    strength = call.get(STRENGTH, 1)
    if not isinstance(strength, int | float) or isinstance(strength, bool) or not 0 < strength <= 1:
        raise InputError(f"inputs: strength is {shown(strength)}; give a number above 0 and up to 1")
