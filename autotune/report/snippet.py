"""Python that runs an exported policy as it was tuned, to be copied from a report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from autotune.evaluation.inputs import CLASS, PROMPT, is_picture
from autotune.models.shipped import card_of_source, code_to_load
from autotune.pipelines.card import ModelCard
from autotune.policy.hub import returned_as
from autotune.report.run import Run
from autotune.results.search_record import SearchRecord


def snippet(run: Run) -> str | None:
    """What makes one of the held-out pictures under the exported policy; None where there is none, or too little known.

    It calls the pipeline as the search did, at the tuned size and with everything that its calls were given besides.
    """
    if run.policy is None or run.search_record is None:
        return None
    search_record = run.search_record
    example = dict(search_record.example) or {PROMPT: "a prompt"}
    if run.gallery is not None and example.keys() == {PROMPT}:
        example = {PROMPT: run.gallery.prompts[0].prompt}
    imports, load = _pipeline(search_record)
    model = run.policy.model
    pictures = returned_as("" if model is None else model.pipeline)
    if any(is_picture(name) for name in (*example, *search_record.call)):
        imports.append("from diffusers.utils import load_image")
    return "\n".join(
        [
            *imports,
            "",
            load,
            f"policy = autotune.load_policy({json.dumps(str(run.folder / 'policy.json'))})",
            "pipe = autotune.apply_policy(pipe, policy)",
            f"image = pipe({', '.join(_arguments(search_record, example))}).{pictures}[0]",
            'image.save("picture.png")',
        ]
    )


def _pipeline(search_record: SearchRecord) -> tuple[list[str], str]:
    """Imports, and the line that loads the pipeline."""
    if search_record.source is None:
        return ["import autotune"], f"pipe = ...  # the {search_record.model} that was tuned"
    imports, pipeline = code_to_load(search_record.source)
    return ["import autotune", *imports], f"pipe = {pipeline}"


def _arguments(search_record: SearchRecord, example: dict[str, Any]) -> Iterator[str]:
    """Of the call, as Python writes them."""
    size = f"({search_record.width}, {search_record.height})"
    if example.keys() == {PROMPT}:
        yield json.dumps(example.pop(PROMPT), ensure_ascii=False)
    for name, value in example.items():
        if name == CLASS:
            yield f"class_labels=[{value}]"
        elif is_picture(name):
            yield f"{name}=load_image({json.dumps(value)}).resize({size})"
        else:
            yield f"{name}={value!r}"
    if search_record.guidance_scale is not None and search_record.guidance_argument is not None:
        yield f"{search_record.guidance_argument}={search_record.guidance_scale:g}"
    for name, value in search_record.call.items():
        yield f"{name}={_loaded(value) if is_picture(name) else repr(value)}"
    card = ModelCard() if search_record.source is None else card_of_source(search_record.source)
    yield from (f"{name}={value!r}" for name, value in card.call.items() if name not in search_record.call)
    native = card.model is not None and (card.model.height, card.model.width) == (
        search_record.height,
        search_record.width,
    )
    if search_record.takes_size and not native:
        yield from (f"height={search_record.height}", f"width={search_record.width}")


def _loaded(files: str | list[str]) -> str:
    """A picture, or those of several adapters."""
    if isinstance(files, list):
        return f"[{', '.join(map(_loaded, files))}]"
    return f"load_image({json.dumps(files)})"
