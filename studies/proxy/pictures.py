"""Pictures of many policies of the shipped models and of their exact runs, for judges to be compared on.

``python -m studies.proxy.pictures emoji-unet`` makes 512 pictures (``--pictures``) of each of the 52 policies of
:mod:`studies.proxy.chosen` and of the exact run of each one's intent (:mod:`studies.proxy.exact`), with guidance as it
is and, where ``--snaps`` says so, snapped to few intervals. Row i of every file is the same prompt and seed. All
policies get 64 pictures, then 64 more, and so on; interrupted, it goes on with the next file. Calls share beginnings,
which changes no bit.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import Progress
from safetensors.torch import load_file
from torch import Tensor

from autotune.evaluation.pictures import generate
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.policy import Policy
from autotune.quality.tensors import write_tensors
from autotune.runtime.apply import applied_sharing
from autotune.runtime.prefix.checkpoints import PrefixCache
from studies.proxy.chosen import Entry, policies
from studies.proxy.exact import exact_run, snapped_run
from studies.shipped import BATCH, shipped

FOLDER = Path("runs/proxy")
PICTURES = 512
"""Of every policy, each of another prompt with another seed."""

SNAPS = (2, 4, 5)
"""Steps of the full run to multiples of which guidance may be snapped, besides none."""

PART = 64
"""Rows of a file."""

_SHARED = 2**30
_SEED = 10**6


def exact_runs(name: str, entries: list[Entry], snaps: Sequence[int] = ()) -> list[Policy]:
    """All exact runs that the policies need, unsnapped ones first."""
    full = demo_assets(name).full_steps
    runs = [exact_run(entry.policy, full) for entry in entries]
    runs += [snapped_run(entry.policy, full, every) for every in snaps for entry in entries]
    return list({run.key: run for run in runs}.values())


def examples(name: str) -> tuple[list[str], list[int]]:
    """Prompts, all different, and seeds of all rows."""
    prompts = random.Random(0).sample(demo_assets(name).tuning_prompts, PICTURES)
    return prompts, [_SEED + row for row in range(len(prompts))]


def file_of(name: str, policy: Policy, part: int, folder: Path = FOLDER) -> Path:
    return folder / name / f"{policy.key}-{part}.safetensors"


def pictures_of(name: str, policy: Policy, folder: Path = FOLDER, count: int = PICTURES) -> Tensor:
    """Pictures (count, 3, 64, 64) uint8 that :func:`main` made, of the first rows."""
    paths = [file_of(name, policy, part, folder) for part in range(count // PART)]
    for path in paths:
        if not path.is_file():
            raise SystemExit(f"No pictures in {path}: run python -m studies.proxy.pictures {name} first.")
    return torch.cat([load_file(path)["pictures"] for path in paths])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=shipped, default=list(DEMO_NAMES))
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--pictures", type=int, default=PICTURES, help="of every policy")
    parser.add_argument("--snaps", type=int, nargs="*", default=[], help=f"of guidance, such as {SNAPS}")
    parser.add_argument("--threads", type=int, help="of the processor")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    for part in range(args.pictures // PART):
        for model in args.models:
            make(model, part, args.folder, args.snaps)


def make(model: str, part: int, folder: Path, snaps: Sequence[int] = ()) -> None:
    """The part's rows of all policies and exact runs, those of them that are not made yet."""
    pipe, assets = demo_pipeline(model), demo_assets(model)
    pipe.set_progress_bar_config(disable=True)
    rows = slice(part * PART, (part + 1) * PART)
    prompts, seeds = examples(model)
    shared = PrefixCache(_SHARED)
    entries = policies(model)
    wanted = {p.key: p for p in (*(entry.policy for entry in entries), *exact_runs(model, entries, snaps))}
    (folder / model).mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        task = progress.add_task(f"{model}, part {part + 1}", total=len(wanted))
        for policy in wanted.values():
            path = file_of(model, policy, part, folder)
            if not path.is_file():
                with applied_sharing(pipe, policy, shared) as call:
                    made = generate(
                        pipe,
                        prompts[rows],
                        seeds[rows],
                        guidance_scale=assets.guidance_scale,
                        batch_size=BATCH,
                        call=call,
                    )
                write_tensors(path, {"pictures": made}, {"policy": policy.id})
            progress.advance(task)


if __name__ == "__main__":
    main()
