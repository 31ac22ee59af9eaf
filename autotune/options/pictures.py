"""Which pictures are made, of what and how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autotune.options.declare import Topic, option
from autotune.options.given import AnyInputs, AnyReference, Prompts

LARGEST_SEED = 10**9 - 1
REFERENCE = "Folder of pictures as they should look, or statistics in a file."


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """What every run asks its pipeline for; None leaves a value to the model."""

    prompts: Prompts | None = option(
        None,
        "Text, CSV or JSONL file of prompts; part of them is held out.",
        topic=Topic.FIRST,
        shell=Path | None,
        shown="the model's own",
    )
    inputs: AnyInputs | None = option(
        None,
        "JSONL file, an object of call arguments a picture.",
        topic=Topic.SUBJECT,
        shell=Path | None,
        shown="prompts, all classes or seeds",
    )
    reference: AnyReference | None = option(
        None, REFERENCE, topic=Topic.SUBJECT, shell=Path | None, shown="the model's own", metavar="FOLDER"
    )
    height: int | None = option(None, "Pixels.", topic=Topic.SUBJECT, shown="the model's native height")
    width: int | None = option(None, "Pixels.", topic=Topic.SUBJECT, shown="the model's native width")
    steps: int | None = option(
        None, "Steps of the full run.", topic=Topic.SUBJECT, shown="the model's own", least=2, most=1000
    )
    guidance_scale: float | None = option(
        None, "Scale of classifier-free guidance.", topic=Topic.SUBJECT, shown="the model's own", least=0
    )
    images: int = option(128, "Most pictures per candidate.", topic=Topic.SEARCH, least=8)
    batch_size: int = option(16, "Pictures per call; fewer take less memory.", topic=Topic.PLACE, least=1, most=1000)
    seed: int = option(0, "Of the search and of the pictures.", topic=Topic.SEARCH, least=0, most=LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class HeldOutOptions(PictureOptions):
    """The same, with pictures that only the last round sees."""

    held_out: Prompts | AnyInputs | None = option(
        None,
        "Prompts or inputs for the last round.",
        topic=Topic.SUBJECT,
        shell=None,
        shown="a quarter of the others",
    )
    held_out_images: int | None = option(
        None,
        "Pictures per finalist, of held-out prompts.",
        topic=Topic.JUDGES,
        shown="480, at most three of each prompt",
        least=8,
    )
