"""The commands and their options. Nothing here loads torch: each command imports what it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from autotune.cli import checks
from autotune.cli.arguments import (
    BatchSize,
    Device,
    DTypeOption,
    FeaturesOption,
    GuidanceScale,
    Height,
    InputsOption,
    Model,
    ObjectiveOption,
    Quiet,
    SamplerOption,
    ScorerOption,
    Study,
    WeightClip,
    WeightFd,
    Width,
)
from autotune.cli.faults import Commands
from autotune.cli.models import ModelSource
from autotune.cli.options import CompareOptions, JudgeOptions, TuneOptions
from autotune.core.errors import InputError
from autotune.core.extras import require_tuner
from autotune.core.naming import CompileMode, budget_labels, default_comparison_name, default_study_name

# From where every step hurts to where hardly any is missed.
_FRONTIER = ("20%", "30%", "40%", "50%", "60%", "80%")

app = typer.Typer(
    name="postdiff",
    help="Find, price and run the policy that makes a text-to-image pipeline cheaper.",
    cls=Commands,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from autotune.cli.version import version_text

        typer.echo(version_text())
        raise typer.Exit


@app.callback()
def postdiff(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the versions that matter and exit."
        ),
    ] = False,
) -> None:
    """Find, price and run the policy that makes a text-to-image pipeline cheaper."""


@app.command()
def tune(
    context: typer.Context,
    study: Study = None,
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
    frontier: Annotated[
        bool, typer.Option("--frontier", help=f"A policy for each of {', '.join(_FRONTIER)} of the FLOPs.")
    ] = False,
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Text, CSV or JSONL file of prompts; part of them is held out.", show_default="the model's own"
        ),
    ] = None,
    inputs: InputsOption = None,
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
    height: Height = None,
    width: Width = None,
    steps: Annotated[
        int | None, typer.Option(min=2, max=1000, help="Steps of the full run.", show_default="the model's own")
    ] = None,
    guidance_scale: GuidanceScale = None,
    trials: Annotated[int, typer.Option(min=1, help="Candidates to evaluate.")] = 48,
    timeout: Annotated[
        str,
        typer.Option(help="No candidate begins later than this: 300 (seconds), 5m or 1h. Known recipes always run."),
    ] = "4m",
    images: Annotated[int, typer.Option(min=8, help="Most pictures per candidate.")] = 256,
    held_out_images: Annotated[
        int | None,
        typer.Option(
            min=8,
            help="Pictures per finalist, of held-out prompts.",
            show_default="480, but at most three of each prompt",
        ),
    ] = None,
    batch_size: BatchSize = 16,
    seed: Annotated[int, typer.Option(min=0, max=10**9 - 1, help="Of the search and of the pictures.")] = 0,
    space: Annotated[
        Path | None,
        typer.Option(
            help="TOML file that narrows, widens or fixes knobs: a table [knobs] of lines like interval = [2, 10].",
            show_default="the model family's",
        ),
    ] = None,
    sampler: SamplerOption = "tpe",
    early_stopping: Annotated[
        bool | None,
        typer.Option(
            help="Make no more pictures of candidates that are not among the better ones on their first.",
            show_default="with tpe and random",
        ),
    ] = None,
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
        str | None, typer.Option(help="An existing one is resumed.", show_default="from model or study, and budget")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="runs/STUDY_NAME")] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what known recipes cost and how long the search would take, and stop."),
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Afterwards find out at six budgets if the model is better served by fewer steps, cheaper steps or"
            " both; takes several times as long.",
        ),
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Search for the best policy within a budget and export it; the same command resumes an interrupted run."""
    require_tuner("tune")
    from autotune.cli.study_file import given_over_file, knobs_of
    from autotune.cost import load_profile, parse_budget, parse_bytes
    from autotune.quality import load_prompts
    from search_spaces import read_ranges

    checks.weights(objective, weight_fd, weight_clip)
    if frontier and budget:
        budget, frontier = given_over_file(context, budget=budget, frontier=frontier)
    if frontier and budget:
        raise InputError("--frontier takes budgets of its own; leave --budget out, or name all of them")
    budgets = [*_FRONTIER] if frontier else budget or ["40%"]
    for each in budgets:
        parse_budget(each)
    budget_labels(budgets)
    if max_cache_memory is not None:
        parse_bytes(max_cache_memory)
    source = ModelSource.find(model)
    if prompts is not None and inputs is not None:
        prompts, inputs = given_over_file(context, prompts=prompts, inputs=inputs)
    if prompts is None and inputs is None and not source.shipped and source.depicts_prompts:
        raise InputError(
            f"--model {model}: a model of your own is tuned on prompts of your own; give --prompts or --inputs FILE"
        )
    ranges = read_ranges(space) if space is not None else None if study is None else knobs_of(study)
    profile = None if target is None else load_profile(target)
    if profile is not None:
        source.check_profile(profile, batch)
    subject = Path(model).resolve().name if study is None else study.stem
    name = study_name or default_study_name(subject, *budgets)
    checked = TuneOptions(
        source=source,
        budgets=tuple(budgets),
        prompts=None if prompts is None else load_prompts(prompts),
        inputs=checks.inputs(prompts, inputs),
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
        batch_size=batch_size,
        seed=seed,
        space=ranges,
        sampler=sampler,
        early_stopping=early_stopping,
        target=profile,
        call_batch=batch,
        max_cache_memory=max_cache_memory,
        device=checks.device(device),
        dtype=dtype,
        storage=checks.storage(storage),
        study_name=name,
        out=checks.folder_to_write(Path("runs") / name if out is None else out),
        explain=explain,
        quiet=quiet,
    )

    if dry_run:
        from autotune.cli.dry_run import run_dry

        return run_dry(checked)

    from autotune.cli.tune import run_tune

    return run_tune(checked)


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Picture file for one prompt or input, else a folder.")],
    prompt: Annotated[
        list[str], typer.Option(help="What to show; repeat it for more pictures.", show_default="--inputs")
    ] = [],  # noqa: B006
    inputs: InputsOption = None,
    policy: Annotated[str | None, typer.Option(help="Policy file or hub id.", show_default="the full run")] = None,
    model: Model = "emoji-unet",
    seed: Annotated[int, typer.Option(min=0, help="Of the first picture; each further one takes the next.")] = 0,
    guidance_scale: GuidanceScale = None,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
) -> None:
    """Make pictures, under a policy or by the full run."""
    from autotune.cli.generate import generate_pictures
    from autotune.policy.loading import load_policy

    source = ModelSource.find(model)
    loaded = None if policy is None else load_policy(policy)
    if loaded is not None:
        source.check_policy(loaded.model)
    rows = checks.rows_to_generate(prompt, inputs, source)
    files = checks.picture_files(out, [row.label for row in rows])
    generate_pictures(
        source,
        loaded,
        rows,
        files,
        seed=seed,
        guidance_scale=guidance_scale,
        device=checks.device(device),
        dtype=dtype,
    )


@app.command()
def compare(
    policy: Annotated[list[str], typer.Option(help="Policy file or hub id; repeat it for more.")],
    model: Model = "emoji-unet",
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Text, CSV or JSONL file of prompts; general is a shipped list.",
            show_default="the model's held-out captions",
        ),
    ] = None,
    inputs: InputsOption = None,
    images: Annotated[int, typer.Option(min=8, help="Pictures of each run.")] = 512,
    reference: Annotated[
        Path | None,
        typer.Option(
            help="Folder of pictures as they should look, or statistics in a file.",
            show_default="the model's own, else four further pictures of every prompt by the full run",
        ),
    ] = None,
    objective: ObjectiveOption = "quality",
    weight_fd: WeightFd = None,
    weight_clip: WeightClip = None,
    scorer: ScorerOption = None,
    features: FeaturesOption = None,
    lpips: Annotated[
        Literal["alex", "vgg", "squeeze"] | None,
        typer.Option(
            help="Measure LPIPS to the full run's pictures too, with this backbone; torchvision fetches its weights.",
            show_default="no LPIPS",
        ),
    ] = None,
    height: Height = None,
    width: Width = None,
    steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1000,
            help="Steps of the full run.",
            show_default="what the policies record, else the model's own",
        ),
    ] = None,
    guidance_scale: GuidanceScale = None,
    batch_size: BatchSize = 16,
    seed: Annotated[int, typer.Option(min=0, max=10**9 - 1, help="Of the choice of prompts and of the pictures.")] = 0,
    device: Device = "auto",
    dtype: DTypeOption = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder to write.", show_default="runs/compare-POLICIES")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document instead of the table.")] = False,
    quiet: Quiet = False,
) -> int:
    """Evaluate policies and the full run side by side; the same command resumes an interrupted run."""
    require_tuner("compare")
    from autotune.quality import load_prompts

    checks.weights(objective, weight_fd, weight_clip)
    source = ModelSource.find(model)
    if prompts is None and inputs is None and not source.shipped and source.depicts_prompts:
        raise InputError(
            f"--model {model}: policies of it are compared on prompts of your own; give --prompts or --inputs FILE"
        )
    policies = checks.policies(policy, source)
    checked = CompareOptions(
        source=source,
        policies=policies,
        prompts=None if prompts is None else load_prompts(prompts),
        inputs=checks.inputs(prompts, inputs),
        images=images,
        reference=checks.reference(reference),
        judges=JudgeOptions(scorer, features, objective, weight_fd, weight_clip),
        lpips=lpips,
        height=checks.side("height", height),
        width=checks.side("width", width),
        steps=steps,
        guidance_scale=guidance_scale,
        batch_size=batch_size,
        seed=seed,
        device=checks.device(device),
        dtype=dtype,
        out=checks.folder_to_write(out or Path("runs") / default_comparison_name(policies)),
        as_json=json,
        quiet=quiet,
    )

    from autotune.cli.compare import run_compare

    return run_compare(checked)


@app.command()
def price(
    policy: Annotated[str, typer.Argument(help="Policy file or hub id.")],
    model: Model = "emoji-unet",
    height: Height = None,
    width: Width = None,
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
    from autotune.policy.loading import load_policy

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
    height: Height = None,
    width: Width = None,
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


@app.command()
def models(json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False) -> None:
    """List the supported pipelines and schedulers, and the shipped models."""
    from autotune.cli.supported import print_supported

    print_supported(as_json=json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of policy files, for editors and other programs that check them."""
    from json import dumps

    from autotune.policy.schema import policy_schema

    typer.echo(dumps(policy_schema(), indent=2))


@app.command()
def describe(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|POLICY.json",
            help="Shipped model, folder of a diffusers pipeline, or Hugging Face Hub id; or a policy's file.",
        ),
    ] = "emoji-unet",
    model: Annotated[
        str | None,
        typer.Option(help="What a policy is for.", show_default="the shipped model that it was made for"),
    ] = None,
    height: Height = None,
    width: Width = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Levels of a model's units to show.", show_default="all")
    ] = None,
    unfold: Annotated[bool, typer.Option("--all", help="Show alike units one by one.")] = False,
    dtype: DTypeOption = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
) -> None:
    """Show what a model consists of and what each part costs; or say what a policy does, and draw its plan."""
    height, width = checks.side("height", height), checks.side("width", width)
    from autotune.cli.describe_policy import is_policy

    if is_policy(subject):
        from autotune.cli.describe_policy import model_of, print_policy
        from autotune.policy import read_policy

        policy = read_policy(subject)
        print_policy(policy, model_of(policy, model), height=height, width=width, unfold=unfold, as_json=json)
        return
    if model is not None:
        raise InputError(f"--model {model}: goes with a policy's file, and {subject} is none")
    source = ModelSource.find(subject)

    from autotune.cli.describe import print_description

    print_description(source, height=height, width=width, dtype=dtype, depth=depth, unfold=unfold, as_json=json)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run, such as runs/emoji-unet-40pct.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Write it anew whenever the search got further, until it ends or Ctrl-C.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="File to write.", show_default="RUN/report.html")] = None,
    storage: Annotated[
        str | None, typer.Option(help="Database URL the run was given.", show_default="what the folder says")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print what the page says as a JSON document, one line a page.")
    ] = False,
) -> None:
    """Write report.html, one page with everything about a run, finished or not; no model is loaded."""
    require_tuner("report")
    from autotune.cli.report import run_report

    page = None if out is None else checks.file_to_write(out)
    run_report(run_dir, storage=checks.storage(storage), out=page, watch=watch, as_json=json)


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
    require_tuner("dashboard")
    from autotune.cli.dashboard import serve

    serve(run_dir, checks.storage(storage), host, port)


@app.command()
def worker(
    storage: Annotated[
        str,
        typer.Option(help="Database URL that 'postdiff tune' was given, such as postgresql+psycopg://user@host/name."),
    ],
    study_name: Annotated[str, typer.Option(help="Name that 'postdiff tune' was given.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for pictures; one that all workers see shows them in one dashboard.",
            show_default="runs/STUDY_NAME",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Where the model is on this machine.", show_default="where it is on the tuner's"),
    ] = None,
    device: Device = "auto",
    workers: Annotated[
        str, typer.Option(help="Processes on this machine; auto is one for every GPU, and one on the CPU.")
    ] = "auto",
    quiet: Quiet = False,
) -> int:
    """Join a search that 'postdiff tune' began, on any number of machines, until it needs no more workers."""
    require_tuner("worker")
    from autotune.cli.worker import WorkerOptions, run_worker

    checked = WorkerOptions(
        storage=checks.storage(storage) or storage,
        study_name=study_name,
        model=None if model is None else ModelSource.find(model),
        device=checks.device(device),
        workers=checks.workers(workers),
        out=checks.folder_to_write(out or Path("runs") / study_name),
        quiet=quiet,
    )
    return run_worker(checked)
