"""Options that several commands have and no run depends on, and single ones of those that runs are declared with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli.declared import shell_option
from autotune.cli.models import DType
from autotune.options import PictureOptions, TuneOptions
from autotune.options.declare import Topic


def _take_defaults(context: typer.Context, path: Path | None) -> Path | None:
    from autotune.cli.study_file import take_defaults

    return take_defaults(context, path)


Model = Annotated[
    str,
    typer.Option(
        help="Shipped model, folder of a diffusers pipeline, or Hugging Face Hub id.", rich_help_panel=Topic.FIRST
    ),
]
Device = Annotated[
    str,
    typer.Option(help="cpu, cuda, cuda:N or mps; auto takes the GPU if there is one.", rich_help_panel=Topic.PLACE),
]
DTypeOption = Annotated[
    DType,
    typer.Option(
        "--dtype",
        help="float32, float16 or bfloat16; auto is float16 on a GPU, float32 on the CPU.",
        rich_help_panel=Topic.PLACE,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print a JSON document.")]
Tier = Annotated[
    str | None,
    typer.Option(
        help="Which, of a file of several policies; full is the full run.", show_default="none", metavar="NAME"
    ),
]
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
        help="TOML file of options and a table [knobs] as for --space, or its name.",
        rich_help_panel=Topic.SUBJECT,
        show_default="none",
        is_eager=True,
        callback=_take_defaults,
    ),
]
