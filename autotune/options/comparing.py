"""All that a comparison may be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.core.naming import Backbone
from autotune.options.declare import Topic, option
from autotune.options.given import AnyReference, Prompts
from autotune.options.judging import JudgeOptions
from autotune.options.pictures import LARGEST_SEED, REFERENCE, PictureOptions

if TYPE_CHECKING:
    from autotune.quality.lpips import Lpips
else:  # The shell knows them by their names and files.
    Lpips = object


@dataclass(frozen=True, kw_only=True)
class CompareOptions(JudgeOptions, PictureOptions):
    """What :func:`autotune.compare` and ``postdiff compare`` take, besides model and policies."""

    prompts: Prompts | None = option(
        None,
        "Text, CSV or JSONL file of prompts; general is a shipped list.",
        topic=Topic.FIRST,
        shell=Path | None,
        shown="the model's held-out captions",
    )
    reference: AnyReference | None = option(
        None,
        REFERENCE,
        topic=Topic.SUBJECT,
        shell=Path | None,
        shown="the model's own, else four more pictures of every prompt by the full run",
        metavar="FOLDER",
    )
    steps: int | None = option(
        None,
        "Steps of the full run.",
        topic=Topic.SUBJECT,
        shown="what the policies record, else the model's own",
        least=1,
        most=1000,
    )
    images: int = option(512, "Pictures of each run.", topic=Topic.FIRST, least=8)
    seed: int = option(
        0, "Of the choice of prompts and of the pictures.", topic=Topic.SUBJECT, least=0, most=LARGEST_SEED
    )
    lpips: Backbone | Lpips | None = option(
        None,
        "Measure LPIPS to the full run's pictures too, by alex, vgg or squeeze; torchvision fetches its weights.",
        topic=Topic.JUDGES,
        shell=Backbone | None,
        shown="no LPIPS",
    )
    run_dir: str | Path | None = option(
        None,
        "Folder to write.",
        topic=Topic.FIRST,
        flag="--out",
        shell=Path | None,
        shown="runs/compare-POLICIES",
        metavar="FOLDER",
    )
    quiet: bool = option(False, "Show errors only.", topic=Topic.OUTPUT)
