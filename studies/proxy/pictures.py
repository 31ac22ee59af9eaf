"""Pictures of many policies of the shipped models, for estimators to be compared on.

``python -m studies.proxy.pictures emoji-unet`` makes 1,024 pictures of each of 40 policies: plain steps at six
costs, and random policies of every lever and combination, most of them between 20 % and 60 % of the full run's
FLOPs, where searches look, some up to 100 %. Row i of every file is the same prompt and seed. Interrupted, it goes
on with the next policy.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import torch
from rich.progress import Progress
from safetensors.torch import load_file
from torch import Tensor

from autotune.cost import Pricer
from autotune.evaluation.pictures import generate
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.policy import Policy
from autotune.quality.tensors import write_tensors
from autotune.runtime import applied, denoiser_of
from studies.sampling import random_policies

FOLDER = Path("runs/proxy")
POLICIES = 40
PICTURES = 1024
"""Of every policy, each of another prompt with another seed."""

_STEPS_ONLY = (4, 5, 6, 8, 10)
# Costs; every other round of policies leaves the last one out.
_BINS = ((0.2, 0.24), (0.24, 0.29), (0.29, 0.35), (0.35, 0.42), (0.42, 0.5), (0.5, 0.6), (0.6, 1.0))
_SEED = 10**6


@dataclass(frozen=True)
class Entry:
    """A policy and its share of the full run's FLOPs."""

    policy: Policy
    share: float


def policies(name: str, wanted: int = POLICIES) -> list[Entry]:
    """The full run, fewer steps, then random policies from each bin of costs in turn; always the same ones."""
    pipe, assets = demo_pipeline(name), demo_assets(name)
    pricer = Pricer(pipe, full_steps=assets.full_steps)
    plain = [Policy(steps=steps) for steps in (assets.full_steps, *_STEPS_ONLY)]
    choices = range(assets.full_steps // 4, assets.full_steps + 1)
    bins = [random_policies(pricer, choices, low=low, high=high) for low, high in _BINS]

    def rounds() -> Iterator[Policy]:
        for number in count(1):
            for each in bins if number % 2 == 0 else bins[:-1]:
                yield next(each)

    seen = {policy.key: policy for policy in plain}
    for policy in islice(rounds(), 2 * wanted):
        if len(seen) == wanted:
            break
        seen.setdefault(policy.key, policy)
    return [Entry(policy, pricer.price(policy).relative) for policy in seen.values()]


def examples(name: str) -> tuple[list[str], list[int]]:
    """Prompts, all different, and seeds of all rows."""
    prompts = random.Random(0).sample(demo_assets(name).tuning_prompts, PICTURES)
    return prompts, [_SEED + row for row in range(len(prompts))]


def file_of(name: str, policy: Policy, folder: Path = FOLDER) -> Path:
    return folder / name / f"{policy.key}.safetensors"


def pictures_of(name: str, policy: Policy, folder: Path = FOLDER) -> Tensor:
    """Pictures (N, 3, 64, 64) uint8 that :func:`main` made."""
    path = file_of(name, policy, folder)
    if not path.is_file():
        raise SystemExit(f"No pictures in {path}: run python -m studies.proxy.pictures {name} first.")
    return load_file(path)["pictures"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--policies", type=int, default=POLICIES)
    parser.add_argument("--threads", type=int, help="of the processor")
    parser.add_argument("--backwards", action="store_true", help="last policy first, to meet another process")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    pipe, assets = demo_pipeline(args.model), demo_assets(args.model)
    pipe.set_progress_bar_config(disable=True)
    # A quarter faster on a CPU; the last bits may differ.
    for part in (denoiser_of(pipe), pipe.vae):
        part.to(memory_format=torch.channels_last)
    prompts, seeds = examples(args.model)
    entries = policies(args.model, args.policies)
    (args.folder / args.model).mkdir(parents=True, exist_ok=True)
    with Progress() as progress:
        task = progress.add_task(args.model, total=len(entries))
        for entry in reversed(entries) if args.backwards else entries:
            path = file_of(args.model, entry.policy, args.folder)
            if not path.is_file():
                with applied(pipe, entry.policy):
                    made = generate(pipe, prompts, seeds, guidance_scale=assets.guidance_scale, batch_size=32)
                write_tensors(path, {"pictures": made}, {"policy": entry.policy.id})
            progress.advance(task)


if __name__ == "__main__":
    main()
