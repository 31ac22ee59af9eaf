"""The commands and their options. Nothing here loads torch: each command imports what it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from autotune import __version__
from autotune.cli import checks
from autotune.cli.models import DType, ModelSource
from autotune.cli.options import JudgeOptions, TuneOptions
from autotune.cost.profile import CompileMode
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


ObjectiveOption = Annotated[
    Literal["quality", "fidelity"],
    typer.Option(help="quality: like the reference and the prompts; fidelity: like the full run's own pictures."),
]
WeightFd = Annotated[
    float | None, typer.Option(min=0, help="Of the distance to the reference, in quality.", show_default="1")
]
WeightClip = Annotated[
    float | None, typer.Option(min=0, help="Of the alignment with the prompts, in quality.", show_default="1")
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
        list[str],
        typer.Option(
            help="Most a policy may cost: a share of the full run's FLOPs (40%), FLOPs (1.2TFLOPs), time of a call on"
            " the target (850ms, 1.5s, 40%ms), a speed-up there (2x); joined by commas all must hold. Repeat it for"
            " a policy each.",
            show_default="40%",
        ),
    ] = [],  # noqa: B006
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Text, CSV or JSONL file of prompts; part of them is held out.", show_default="the model's own"
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures as they should look, or statistics in a file.", show_default="the model's own"
        ),
    ] = None,
    objective: ObjectiveOption = "quality",
    weight_fd: WeightFd = None,
    weight_clip: WeightClip = None,
    scorer: ScorerOption = None,
    features: FeaturesOption = None,
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
    target: Annotated[
        Path | None,
        typer.Option(help="Profile of the hardware that times are meant for.", show_default="this machine's"),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Pictures per call in deployment, for time and memory.", show_default="1"),
    ] = None,
    max_cache_memory: Annotated[
        str | None,
        typer.Option(help="Most memory a call may take for what it keeps: 500MB, 1.5GiB.", show_default="no bound"),
    ] = None,
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
    from autotune.cost import load_profile, parse_budget, parse_bytes
    from autotune.quality import load_prompts

    checks.weights(objective, weight_fd, weight_clip)
    budgets = budget or ["40%"]
    for each in budgets:
        parse_budget(each)
    if max_cache_memory is not None:
        parse_bytes(max_cache_memory)
    source = ModelSource.find(model)
    if prompts is None and not source.shipped:
        raise InputError(f"--model {model}: a model of your own is tuned on prompts of your own; give --prompts FILE")
    profile = None if target is None else load_profile(target)
    if profile is not None:
        source.check_profile(profile, batch)
    names = [default_study_name(study_name or Path(model).resolve().name, each) for each in budgets]
    if study_name and len(budgets) == 1:
        names = [study_name]
    folders = [Path("runs") / name for name in names]
    if out is not None:
        folders = [out] if len(budgets) == 1 else [out / name for name in names]
    checked = [
        TuneOptions(
            source=source,
            budget=each,
            prompts=None if prompts is None else load_prompts(prompts),
            reference=checks.reference(reference),
            judges=JudgeOptions(scorer, features, objective, weight_fd, weight_clip),
            height=checks.side("height", height),
            width=checks.side("width", width),
            steps=steps,
            guidance_scale=guidance_scale,
            trials=trials,
            timeout=checks.duration(timeout),
            images=images,
            held_out_images=held_out_images,
            seed=seed,
            target=profile,
            call_batch=batch,
            max_cache_memory=max_cache_memory,
            device=checks.device(device),
            dtype=dtype,
            storage=checks.storage(storage),
            study_name=name,
            out=checks.folder_to_write(folder),
            quiet=quiet,
        )
        for each, name, folder in zip(budgets, names, folders, strict=True)
    ]

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
    height: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's native height")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's native width")] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Pictures in a call.", show_default="1, or the target's smallest")
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Profile of the hardware to predict milliseconds on.", show_default="none")
    ] = None,
    dtype: DTypeOption = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Say what a policy costs, by step and by kind of unit; neither weights nor the target are needed."""
    from autotune.cost import load_profile
    from autotune.loading import load_policy

    source = ModelSource.find(model)
    loaded = load_policy(policy)
    source.check_policy(loaded.model)
    profile = None if target is None else load_profile(target)
    if profile is not None:
        source.check_profile(profile, batch)
    height, width = checks.side("height", height), checks.side("width", width)

    from autotune.cli.price import print_price

    if batch is None:
        batch = 1 if profile is None else min(times.batch for times in profile.batches)
    print_price(source, loaded, height=height, width=width, batch=batch, target=profile, dtype=dtype, as_json=json)


@app.command()
def profile(
    model: Model = "emoji-unet",
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="MODEL-DEVICE-DTYPE.json")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's native height")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.", show_default="the model's native width")] = None,
    batch: Annotated[str, typer.Option(help="Pictures per call, several joined by commas.")] = "1",
    scales: Annotated[
        str | None,
        typer.Option(help="Latent sizes per side, such as 0.5,0.75,1.", show_default="all a search may ask for"),
    ] = None,
    guidance: Annotated[
        bool | None, typer.Option(help="Calls with classifier-free guidance.", show_default="the pipeline's own")
    ] = None,
    compile_mode: Annotated[
        CompileMode, typer.Option("--compile", help="Compile the denoiser, in this mode of torch.compile.")
    ] = "none",
    config_only: Annotated[
        bool, typer.Option("--config-only", help="Random weights: only the model's configs are read or downloaded.")
    ] = False,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="Show errors only.")] = False,
) -> int:
    """Measure how long a model's parts take on this machine, for budgets in time (--target) here or elsewhere."""
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
