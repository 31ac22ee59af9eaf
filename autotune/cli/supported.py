"""``postdiff models``: which pipelines and schedulers policies support, which models and study files are shipped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from autotune.cli.packaged_studies import StudyFile, study_files
from autotune.models.shipped import DEMO_NAMES, demo_assets
from autotune.pipelines.families import Family, GenericFamily, supported
from autotune.runtime.schedulers import SOLVERS

# Columns where the output is no terminal.
_WIDTH = 120
# They take no guidance scale, or embed it in the timestep: there is one branch.
_UNGUIDED = {"DDPMPipeline", "DDIMPipeline", "LatentConsistencyModelPipeline", "FluxFillPipeline"}


@dataclass(frozen=True)
class SupportedPipeline:
    """A class of pipelines.

    Attributes:
        denoiser: Its denoiser's class.
        guidance: How guidance's branches are computed.
        tuned: Whether a search takes it; policies for it can be made by hand in any case.
        notes: What a user should know, such as why it is not tuned.
    """

    pipeline: str
    denoiser: str
    guidance: str
    tuned: bool
    notes: str


@dataclass(frozen=True)
class SupportedScheduler:
    """A class of schedulers and the kinds of predictions it takes from a denoiser."""

    scheduler: str
    predictions: tuple[str, ...]


@dataclass(frozen=True)
class ShippedModel:
    """A trained model inside this package."""

    name: str
    pipeline: str
    denoiser: str
    scheduler: str
    full_steps: int
    guidance_scale: float


def guidance_of(pipeline: str, family: type[Family]) -> str:
    """``batched``, ``separate`` or ``none``: how a class of pipelines computes the branches of guidance."""
    return "none" if pipeline in _UNGUIDED else family.branches


def supported_pipelines() -> list[SupportedPipeline]:
    """Every pipeline class that is listed, and what is taken beyond those."""
    families = {name: family for family in _descendants(Family) for name in family.pipelines}
    return [
        SupportedPipeline(
            pipeline=name,
            denoiser=denoiser,
            guidance=guidance_of(name, families.get(name, GenericFamily)),
            tuned=not families.get(name, GenericFamily).not_tuned,
            notes=notes,
        )
        for name, denoiser, notes in supported()
    ]


def supported_schedulers() -> list[SupportedScheduler]:
    return [SupportedScheduler(name, tuple(SOLVERS[name].predictions)) for name in sorted(SOLVERS)]


def shipped_models() -> list[ShippedModel]:
    models = []
    for name in DEMO_NAMES:
        assets = demo_assets(name)
        index = json.loads((assets.folder / "model_index.json").read_text())
        denoiser = index.get("unet") or index["transformer"]
        models.append(
            ShippedModel(
                name=name,
                pipeline=index["_class_name"],
                denoiser=denoiser[1],
                scheduler=index["scheduler"][1],
                full_steps=assets.full_steps,
                guidance_scale=assets.guidance_scale,
            )
        )
    return models


def print_supported(*, as_json: bool, file: TextIO | None = None) -> None:
    """Print what is supported on ``file``, by default stdout, as tables or as a JSON document."""
    pipelines, schedulers, models = supported_pipelines(), supported_schedulers(), shipped_models()
    studies = study_files()
    if as_json:
        document = {
            "pipelines": [asdict(pipeline) for pipeline in pipelines],
            "schedulers": [asdict(scheduler) for scheduler in schedulers],
            "models": [asdict(model) for model in models],
            "studies": [asdict(study) for study in studies],
        }
        print(json.dumps(document), file=file)
        return
    console = Console(highlight=False, file=file)
    if not console.is_terminal:
        console.width = _WIDTH
    table = _table("Pipelines", "pipeline", "denoiser", "guidance", "tuned", "notes")
    table.caption = "Guidance: both branches batched in one call of the denoiser, or each in a separate call."
    for pipeline in pipelines:
        tuned = "yes" if pipeline.tuned else "no"
        table.add_row(pipeline.pipeline, pipeline.denoiser, pipeline.guidance, tuned, pipeline.notes)
    console.print(table, markup=False)
    table = _table("Schedulers", "scheduler", "predictions")
    for scheduler in schedulers:
        table.add_row(scheduler.scheduler, ", ".join(scheduler.predictions))
    console.print(table)
    table = _table("Shipped models", "model", "pipeline", "denoiser", "scheduler", "steps", "guidance scale")
    for model in models:
        figures = str(model.full_steps), f"{model.guidance_scale:g}"
        table.add_row(model.name, model.pipeline, model.denoiser, model.scheduler, *figures)
    console.print(table)
    console.print(_studies(studies))


def _studies(studies: Sequence[StudyFile]) -> Table:
    table = _table("Study files", "study", "model")
    table.caption = "postdiff-tune --study STUDY reads what suits the model; options given in the shell win."
    for study in studies:
        table.add_row(study.name, study.model)
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold", no_wrap=heading != "notes")
    return table


def _descendants(family: type[Family]) -> list[type[Family]]:
    children = family.__subclasses__()
    return [*children, *(deeper for child in children for deeper in _descendants(child))]
