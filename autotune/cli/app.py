"""The commands and their options. Nothing here loads torch: each command imports what it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from autotune import __version__
from autotune.cli import checks
from autotune.cli.models import DType, ModelSource
from autotune.cli.options import TuneOptions
from autotune.errors import InputError
from autotune.naming import default_study_name

app = typer.Typer(
    name="postdiff",
    help="Find, price and run the policy that makes a text-to-image pipeline cheaper.",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Model = Annotated[str, typer.Option(help="Shipped model, folder of a diffusers pipeline, or Hugging Face Hub id.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or mps; auto takes the GPU if there is one.")]
DTypeOption = Annotated[DType, typer.Option("--dtype", help="Precision; auto is float16 on a GPU, float32 on the CPU.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"postdiff {__version__}")
        raise typer.Exit


@app.callback()
def postdiff(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Find, price and run the policy that makes a text-to-image pipeline cheaper."""


@app.command()
def tune(
    model: Model = "emoji-unet",
    budget: Annotated[
        str, typer.Option(help="Most the denoising may cost: a share of the full run (40%) or FLOPs (1.2TFLOPs).")
    ] = "40%",
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Text, CSV or JSONL file of prompts; part of them is held out.", show_default="the model's own"
        ),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Folder of pictures as they should look.", show_default="the model's own")
    ] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's native height")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's native width")] = None,
    steps: Annotated[
        int | None, typer.Option(min=2, max=1000, help="Steps of the full run.", show_default="the model's own")
    ] = None,
    guidance_scale: Annotated[float | None, typer.Option(min=0, show_default="the model's own")] = None,
    trials: Annotated[int, typer.Option(min=1, help="Candidates to evaluate.")] = 48,
    timeout: Annotated[
        str,
        typer.Option(help="No candidate begins later than this: 300 (seconds), 5m or 1h. Known recipes always run."),
    ] = "4m",
    images: Annotated[int, typer.Option(min=8, help="Pictures per candidate.")] = 64,
    held_out_images: Annotated[int, typer.Option(min=8, help="Pictures per finalist, of held-out prompts.")] = 264,
    seed: Annotated[int, typer.Option(min=0, max=10**9 - 1, help="Of the search and of the pictures.")] = 0,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    storage: Annotated[
        str | None, typer.Option(help="Database URL of the study.", show_default="study.db in the run's folder")
    ] = None,
    study_name: Annotated[
        str | None, typer.Option(help="An existing one is resumed.", show_default="from model and budget")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/STUDY_NAME")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> int:
    """Search for the best policy within a budget and export it; the same command resumes an interrupted run."""
    from autotune.cost import parse_budget
    from autotune.quality import load_prompts

    parse_budget(budget)
    source = ModelSource.find(model)
    if prompts is None and not source.shipped:
        raise InputError(f"--model {model}: a model of your own is tuned on prompts of your own; give --prompts FILE")
    name = study_name or default_study_name(Path(model).resolve().name, budget)
    checked = TuneOptions(
        source=source,
        budget=budget,
        prompts=None if prompts is None else load_prompts(prompts),
        reference=checks.picture_folder(reference),
        height=checks.side("height", height),
        width=checks.side("width", width),
        steps=steps,
        guidance_scale=guidance_scale,
        trials=trials,
        timeout=checks.duration(timeout),
        images=images,
        held_out_images=held_out_images,
        seed=seed,
        device=checks.device(device),
        dtype=dtype,
        storage=checks.storage(storage),
        study_name=name,
        out=checks.folder_to_write(out or Path("runs") / name),
        quiet=quiet,
    )

    from autotune.cli.tune import run_tune

    return run_tune(checked)


@app.command()
def generate(
    prompt: Annotated[list[str], typer.Option(help="What to show; repeat it for more pictures.")],
    out: Annotated[Path, typer.Option(help="Picture file for one prompt, else a folder.")],
    policy: Annotated[str | None, typer.Option(help="Policy file or hub id.", show_default="the full run")] = None,
    model: Model = "emoji-unet",
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture; each further one takes the next.")] = 0,
    guidance_scale: Annotated[float | None, typer.Option(min=0, show_default="the model's own")] = None,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
) -> None:
    """Make pictures, under a policy or by the full run."""
    from autotune.cli.generate import generate_pictures
    from autotune.loading import load_policy

    source = ModelSource.find(model)
    loaded = None if policy is None else load_policy(policy)
    if loaded is not None:
        source.check_policy(loaded.model)
    files = checks.picture_files(out, prompt)
    if not all(text.strip() for text in prompt):
        raise InputError("--prompt: is empty; say what to show")
    generate_pictures(
        source,
        loaded,
        prompt,
        files,
        seed=seed,
        guidance_scale=guidance_scale,
        device=checks.device(device),
        dtype=dtype,
    )


@app.command()
def price(
    policy: Annotated[str, typer.Argument(help="Policy file or hub id.")],
    model: Model = "emoji-unet",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Say what a policy costs, without running it."""
    from autotune.cli.price import describe_price
    from autotune.loading import load_policy

    source = ModelSource.find(model)
    loaded = load_policy(policy)
    source.check_policy(loaded.model)
    typer.echo(describe_price(source, loaded, as_json=json))


@app.command()
def models(json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False) -> None:
    """List the supported pipelines and schedulers, and the shipped models."""
    from autotune.cli.supported import print_supported

    print_supported(as_json=json)


@app.command()
def describe(
    model: Annotated[
        str, typer.Argument(help="Shipped model, folder of a diffusers pipeline, or Hugging Face Hub id.")
    ] = "emoji-unet",
    height: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's native height")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's native width")] = None,
    depth: Annotated[int | None, typer.Option(min=1, help="Levels of units to show.", show_default="all")] = None,
    unfold: Annotated[bool, typer.Option("--all", help="Show alike units one by one.")] = False,
    dtype: DTypeOption = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document that lists every unit.")] = False,
) -> None:
    """Show what a model consists of: its denoiser's units, what each costs and what keeping it takes."""
    source = ModelSource.find(model)
    height, width = checks.side("height", height), checks.side("width", width)

    from autotune.cli.describe import print_description

    print_description(source, height=height, width=width, dtype=dtype, depth=depth, unfold=unfold, as_json=json)


@app.command()
def dashboard(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/emoji-unet-40pct.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this machine's alone.")] = "127.0.0.1",
    storage: Annotated[
        str | None, typer.Option(help="Database URL the run was given.", show_default="study.db in the folder")
    ] = None,
) -> None:
    """Open the Optuna dashboard on a run's study and pictures."""
    from autotune.cli.dashboard import serve

    serve(run_dir, checks.storage(storage), host, port)
