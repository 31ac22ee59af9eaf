"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from autotune.cli.models import DType


def _take_defaults(context: typer.Context, path: Path | None) -> Path | None:
    from autotune.cli.study_file import take_defaults

    return take_defaults(context, path)


Model = Annotated[str, typer.Option(help="Shipped model, folder of a diffusers pipeline, or Hugging Face Hub id.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps; auto takes the GPU if there is one.")]
DTypeOption = Annotated[DType, typer.Option("--dtype", help="Precision; auto is float16 on a GPU, float32 on the CPU.")]
ObjectiveOption = Annotated[
    Literal["quality", "fidelity"],
    typer.Option(help="quality: like the reference and the prompts; fidelity: like the full run's own pictures."),
]
WeightFd = Annotated[
    float | None, typer.Option(min=0, help="Of the distance to the reference, in quality.", show_default="1")
]
WeightClip = Annotated[
    float | None, typer.Option(min=0, help="Of the alignment with the prompts, in quality.", show_default="4")
]
ScorerOption = Annotated[
    str | None,
    typer.Option(
        help="open_clip model that judges: folder, hf-hub:OWNER/MODEL or ARCHITECTURE/WEIGHTS.",
        show_default="the model's own, else a CLIP ViT-B/32 from the hub",
    ),
]
FeaturesOption = Annotated[
    str | None,
    typer.Option(
        help="Network that the distance is taken in: efficientnet-lite0, inception, timm:NAME or an open_clip model.",
        show_default="the scorer",
    ),
]
SamplerOption = Annotated[
    Literal["tpe", "gp", "cmaes", "nsga2", "random"], typer.Option(help="Optuna's sampler that proposes candidates.")
]
InputsOption = Annotated[
    Path | None,
    typer.Option(
        help="JSONL file of what each picture is asked for: a line is an object of arguments of the pipeline's call,"
        " such as prompt, negative_prompt, class_label, image, mask_image or strength; paths are relative to the file.",
        show_default="prompts, all classes or seeds",
    ),
]
Height = Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's native height")]
Width = Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's native width")]
BatchSize = Annotated[int, typer.Option(min=1, max=1000, help="Pictures per call; fewer take less memory.")]
GuidanceScale = Annotated[float | None, typer.Option(min=0, show_default="the model's own")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show errors only.")]
Study = Annotated[
    Path | None,
    typer.Option(
        metavar="NAME|FILE",
        help="TOML file of these options without their dashes (guidance-scale = 5.0) and of a table [knobs] as for"
        " --space, or the name of one that 'postdiff models' lists. Paths in it are relative to it; options given here"
        " win.",
        show_default="none",
        is_eager=True,
        callback=_take_defaults,
    ),
]
