"""The options of ``postdiff profile``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune.cli import checks
from autotune.cli.arguments import Device, DTypeOption, Guidance, Height, Model, Quiet, Width
from autotune.cli.models import ModelSource
from autotune.core.extras import require_tuner
from autotune.core.naming import CompileMode


def profile(
    model: Model = "emoji-unet",
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="MODEL-DEVICE-DTYPE.json")] = None,
    height: Height = None,
    width: Width = None,
    batch: Annotated[str, typer.Option(metavar="N", help="Pictures per call, several joined by commas.")] = "1",
    scales: Annotated[
        str | None,
        typer.Option(
            metavar="X", help="Latent sizes per side, such as 0.5,0.75,1.", show_default="all a search may ask for"
        ),
    ] = None,
    guidance: Guidance = None,
    compile_mode: Annotated[
        CompileMode,
        typer.Option(
            "--compile", help="Compile the denoiser: none, default, reduce-overhead or max-autotune, as torch.compile."
        ),
    ] = "none",
    config_only: Annotated[
        bool, typer.Option("--config-only", help="Random weights: only the model's configs are read or downloaded.")
    ] = False,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    quiet: Quiet = False,
) -> int:
    """Measure how long a model's parts take on this machine, for budgets in time (--target) here or elsewhere."""
    require_tuner("profile")
    from autotune.cli.profile import ProfileOptions, run_profile

    checked = ProfileOptions(
        source=ModelSource.find(model),
        height=checks.side("height", height),
        width=checks.side("width", width),
        batches=checks.batches(batch),
        scales=None if scales is None else checks.scales(scales),
        guided=guidance,
        compile_mode=compile_mode,
        config_only=config_only,
        device=checks.device(device),
        dtype=dtype,
        out=None if out is None else checks.file_to_write(out),
        quiet=quiet,
    )
    return run_profile(checked)
