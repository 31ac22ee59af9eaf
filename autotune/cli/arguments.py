"""Options that several commands have and no run depends on, and single ones of those that runs are declared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.declared import shell_option
from autotune.cli.models import DType
from autotune.options import PictureOptions, TuneOptions


def _take_defaults(context: typer.Context, path: Path | None) -> Path | None:
    from autotune.cli.study_file import take_defaults

    return take_defaults(context, path)


Model = Annotated[str, typer.Option(help="Shipped model, folder of a diffusers pipeline, or Hugging Face Hub id.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps; auto takes the GPU if there is one.")]
DTypeOption = Annotated[DType, typer.Option("--dtype", help="Precision; auto is float16 on a GPU, float32 on the CPU.")]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON document.")]
Inputs = Annotated[Path | None, shell_option(PictureOptions, "inputs")]
Height = Annotated[int | None, shell_option(PictureOptions, "height")]
Width = Annotated[int | None, shell_option(PictureOptions, "width")]
Guidance = Annotated[
    bool | None, typer.Option(help="Calls with classifier-free guidance.", show_default="the pipeline's own")
]
GuidanceScale = Annotated[float | None, shell_option(PictureOptions, "guidance_scale")]
Quiet = Annotated[bool, shell_option(TuneOptions, "quiet")]
Study = Annotated[
    Path | None,
    typer.Option(
        metavar="NAME|FILE",
        help="TOML file of these options without their dashes (guidance-scale = 5.0) and of a table knobs as for"
        " --space, or the name of one that 'postdiff models' lists. Paths in it are relative to it; options given here"
        " win.",
        show_default="none",
        is_eager=True,
        callback=_take_defaults,
    ),
]
