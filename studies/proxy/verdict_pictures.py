"""Full runs and 8 steps from the same noise, on held-out captions: what experiments with verdicts draw from.

Pictures and features are kept: interrupted, the same call goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from autotune.core.errors import InputError
from autotune.core.records import write_atomically
from autotune.evaluation.pictures import generate
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.policy import Policy
from autotune.quality import Evaluation, Objective, Scorer, coarse
from autotune.quality.simultaneous import leave_one_out, pseudo_values
from autotune.quality.tensors import write_tensors
from autotune.quality.wavelets import textures
from autotune.runtime import applied
from studies.shipped import BATCH, search_prompts

FOLDER = Path("runs/verdicts")
PROMPTS = 480
RUNS, FEWER = 5, 8
FINALISTS = 3
COUNTS = (6, 8, 16, 32, 64, 128)
SHIFTS = (0.0, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12)
LEVEL = 0.95
_CHUNK = 96
_SEED = 7 * 10**8

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class Seen:
    """What the model's own scorer sees.

    Attributes:
        text: (P, E) of the captions.
        full: (runs, P, E) of the full runs.
        coarse: (runs, P, E) of their pictures with 16 pixels a side.
        fewer: (runs, P, E) of 8 steps from the noise of each.
        full_textures: (runs, P, 27).
        coarse_textures: (runs, P, 27).
        fewer_textures: (runs, P, 27).
    """

    text: Tensor
    full: Tensor
    coarse: Tensor
    fewer: Tensor
    full_textures: Tensor
    coarse_textures: Tensor
    fewer_textures: Tensor


def pictures(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
    """Files of pictures by run; those that are missing are made."""
    prompts = search_prompts(name)[1][:PROMPTS]
    pipe, assets = None, demo_assets(name)
    folder.mkdir(parents=True, exist_ok=True)
    for steps, run in itertools.product((assets.full_steps, FEWER), range(RUNS)):
        for start in range(0, PROMPTS, _CHUNK):
            path = folder / f"{steps}-{run}-{start}.safetensors"
            if not path.is_file():
                if pipe is None:
                    pipe = demo_pipeline(name)
                    pipe.set_progress_bar_config(disable=True)
                chunk = prompts[start : start + _CHUNK]
                seeds = [_SEED + run * 10**4 + start + row for row in range(len(chunk))]
                with applied(pipe, Policy(steps=steps)):
                    made = generate(pipe, chunk, seeds, guidance_scale=assets.guidance_scale, batch_size=BATCH)
                write_tensors(path, {"pictures": made}, {})
                print(path, flush=True)
            yield f"{steps}-{run}", path


def look(name: str, folder: Path) -> Seen:
    """Features of all pictures, which are kept too."""
    path = folder / "seen.safetensors"
    if not path.is_file():
        scorer = Scorer(demo_assets(name).scorer_dir)
        seen: dict[str, list[Tensor]] = {}
        for run, file in pictures(name, folder):
            made = load_file(file)["pictures"]
            for kind, pictures_of_kind in (("", made), ("coarse ", coarse(made))):
                seen.setdefault(f"{kind}{run}", []).append(scorer.image_features(pictures_of_kind))
                seen.setdefault(f"{kind}{run} textures", []).append(textures(pictures_of_kind))
        steps = demo_assets(name).full_steps

        def of_runs(before: str, of: int, after: str = "") -> Tensor:
            return torch.stack([torch.cat(seen[f"{before}{of}-{run}{after}"]) for run in range(RUNS)])

        found = {
            "text": scorer.text_features(search_prompts(name)[1][:PROMPTS]),
            "full": of_runs("", steps),
            "coarse": of_runs("coarse ", steps),
            "fewer": of_runs("", FEWER),
            "full_textures": of_runs("", steps, " textures"),
            "coarse_textures": of_runs("coarse ", steps, " textures"),
            "fewer_textures": of_runs("", FEWER, " textures"),
        }
        write_tensors(path, found, {})
    return Seen(**load_file(path))


@dataclass(frozen=True, eq=False)
class Sample:
    """K differences of losses from fewer steps, on some captions.

    Attributes:
        estimates: (K,).
        pseudo: (P, K) pseudo-values.
    """

    estimates: Tensor
    pseudo: Tensor

    @staticmethod
    def of(objective: Objective, runs: Sequence[Evaluation], rows: Tensor) -> Sample:
        """Of finalists and then fewer steps, on captions ``rows`` (P,)."""
        whole = differences(objective.losses(runs, rows[None]))[0]
        without = differences(objective.losses(runs, leave_one_out(rows[:, None])))
        return Sample(whole, pseudo_values(whole, without))

    def moved(self, by: Tensor) -> Sample:
        """The same where the truth lies elsewhere by so much (K,)."""
        return Sample(self.estimates + by, self.pseudo + by)


def differences(losses: Tensor) -> Tensor:
    """(..., K) of K finalists from fewer steps, whose losses come last."""
    return losses[..., :-1] - losses[..., -1:]


def asked(description: str | None) -> argparse.Namespace:
    """What the command line of an experiment says: ``model``, its ``folder``, ``repeats`` and ``repeats_of_power``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--repeats-of-power", type=int, default=100)
    given = parser.parse_args()
    given.folder /= given.model
    return given


def kept(path: Path, find: Callable[[], object]) -> Any:
    """What is found, as JSON in a file, or was found before."""
    if not path.is_file():
        write_atomically(path, json.dumps(find()))
    return json.loads(path.read_text())


def accepted(make: Callable[[], Made]) -> Made:
    """One whose pictures the objective does not refuse, as it does with some of very few captions."""
    while True:
        try:
            return make()
        except InputError:
            continue


def drawn(draw: torch.Generator) -> Tensor:
    """As many captions as there are, with replacement."""
    return torch.randint(PROMPTS, (PROMPTS,), generator=draw)
