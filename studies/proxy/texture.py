"""Would the objective rank better if its distance saw texture?

``python -m studies.proxy.texture`` takes other features than ``emoji-clip``'s for the distance, in place of them or
beside them, and prints Spearman's correlation with the truth of :mod:`studies.proxy.estimators` at n = 128, and what
that has over the default objective with its 95 % interval. No feature is of EfficientNet's family, which judges. The
judges themselves are asked too: their own ranking on 128 pictures is what any other can be hoped to reach.

Choices (which statistics, standardised or not) were made on ``emoji-unet``; ``emoji-dit`` confirms or refutes them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from autotune.core.records import write_atomically
from autotune.models.shipped import DEMO_NAMES
from autotune.quality import Baseline, Evaluation, Objective, Reference, Weights, coarse
from autotune.quality.objective import DISTANCE
from studies.proxy.chosen import Entry, policies
from studies.proxy.estimators import (
    RESULTS,
    Result,
    Scoring,
    judged,
    losses,
    sets_of,
    true_losses,
)
from studies.proxy.features import Views, real_pictures, views
from studies.proxy.pictures import FOLDER, PICTURES, pictures_of
from studies.proxy.ranking import Losses
from studies.proxy.spoiling_network import load_network

COUNT = 128
DEFAULT = Scoring("default", DISTANCE, Weights())
_LEVELS = 4
_BATCH = 64
# Brightness and two colour differences.
_OPPONENTS = torch.tensor([[0.299, 0.587, 0.114], [0.5, 0.0, -0.5], [-0.25, 0.5, -0.25]])
_BINOMIAL = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
_ORIENTATIONS = 4
_FLOOR = 0.01

Eye = Callable[[Tensor], Tensor]


def laplacian(pictures: Tensor) -> Tensor:
    """Log of mean and spread of a Laplacian pyramid's levels (Burt and Adelson 1983), and the coarsest's means."""
    rest, seen = _opponents(pictures), []
    for _ in range(_LEVELS - 1):
        smaller = _halved(rest)
        seen += _spread(rest - F.interpolate(smaller, rest.shape[-2:], mode="bilinear"))
        rest = smaller
    return torch.cat([*seen, *_spread(rest), rest.mean((2, 3))], 1)


def gabor(pictures: Tensor) -> Tensor:
    """Log of mean and spread of oriented energy at three scales (Manjunath and Ma 1996)."""
    rest, seen = _opponents(pictures), []
    filters = _gabor_filters()
    for _ in range(_LEVELS - 1):
        padded = F.pad(rest, (3, 3, 3, 3), mode="reflect")
        pairs = F.conv2d(padded, filters.repeat(3, 1, 1, 1), groups=3).unflatten(1, (-1, 2))
        seen += _spread((pairs.square().sum(2) + 1e-6).sqrt())
        rest = _halved(rest)
    return torch.cat([*seen, rest.mean((2, 3)), rest.std((2, 3))], 1)


def random_network(widths: Sequence[int] = (32, 64, 128, 128)) -> Eye:
    """Channels' means of convolutions with random weights, untrained."""
    generator, weights = torch.Generator().manual_seed(0), []
    for before, width in zip((3, *widths), widths, strict=False):
        weights.append(torch.randn(width, before, 3, 3, generator=generator) * math.sqrt(2 / (9 * before)))

    def eye(pictures: Tensor) -> Tensor:
        values, seen = (pictures.float() / 255 - 0.5) * 4, []
        for weight in weights:
            values = F.relu(F.conv2d(F.pad(values, (1, 1, 1, 1), mode="reflect"), weight))
            seen.append(values.mean((2, 3)))
            values = F.avg_pool2d(values, 2)
        return torch.cat(seen, 1)

    return eye


def _opponents(pictures: Tensor) -> Tensor:
    return torch.einsum("oc,nchw->nohw", _OPPONENTS, pictures.float() / 255)


def _halved(values: Tensor) -> Tensor:
    channels = values.shape[1]
    kernel = torch.outer(_BINOMIAL, _BINOMIAL).expand(channels, 1, 5, 5)
    return F.conv2d(F.pad(values, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels, stride=2)


def _spread(values: Tensor) -> list[Tensor]:
    return [(each + _FLOOR).log() for each in (values.abs().mean((2, 3)), values.std((2, 3)))]


def _gabor_filters() -> Tensor:
    """(2 x orientations, 1, 7, 7): even and odd waves of four pixels."""
    y, x = torch.meshgrid(torch.arange(-3.0, 4), torch.arange(-3.0, 4), indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / 4.5)
    filters = []
    for number in range(_ORIENTATIONS):
        angle = number * math.pi / _ORIENTATIONS
        along = x * math.cos(angle) + y * math.sin(angle)
        for phase in (0.0, math.pi / 2):
            wave = envelope * torch.cos(math.pi / 2 * along + phase)
            wave = wave - wave.mean()
            filters.append(wave / wave.norm())
    return torch.stack(filters)[:, None]


@dataclass(frozen=True, eq=False)
class Seen:
    """Standardised features of all policies' pictures (P, N, D), of coarse ones (N, D) and of real ones (M, D)."""

    policies: Tensor
    coarse: Tensor
    real: Tensor

    @staticmethod
    def of(policies: Sequence[Tensor], coarse: Tensor, real: Tensor) -> Seen:
        """Each feature divided by its spread over real pictures: so that none counts by its unit alone."""
        spread = real.std(0) + 1e-6
        return Seen(torch.stack(list(policies)) / spread, coarse / spread, real / spread)


def look(name: str, entries: Sequence[Entry], eyes: Mapping[str, Eye], folder: Path) -> dict[str, Seen]:
    """What every eye sees, the pictures of each policy read once."""

    def features(pictures: Tensor) -> list[Tensor]:
        return [torch.cat([eye(batch) for batch in pictures.split(_BATCH)]) for eye in eyes.values()]

    seen = [
        features(pictures_of(name, entry.policy, folder))
        for entry in track(entries, description=f"looking at {name}'s pictures")
    ]
    spoiled = features(coarse(pictures_of(name, entries[0].policy, folder)))
    real = features(real_pictures(name))
    return {
        eye: Seen.of([each[number] for each in seen], spoiled[number], real[number]) for number, eye in enumerate(eyes)
    }


def block_losses(seen: Views, block: Seen, rows: Tensor, weights: Weights) -> Losses:
    """Losses whose distance is taken in ``block``; the alignment is ``emoji-clip``'s as ever."""
    clip = seen.proxy_baseline(rows)
    evaluations = [
        Evaluation(block.policies[index, rows], seen.proxy(index, rows).alignment)
        for index in range(len(seen.policies))
    ]
    baseline = Baseline(evaluations[0], block.coarse[rows], clip.chance, clip.prompts)
    objective = Objective(Reference.of(block.real, shrink=True), baseline, distance="frechet", weights=weights)
    return np.array([objective.score(each).loss for each in evaluations])


def whitened(seen: Views) -> Seen:
    """``emoji-clip``'s features with every direction as wide as any other among real pictures."""
    values, vectors = torch.linalg.eigh(torch.cov(seen.real.clip.double().T))
    turn = (vectors / (values.clamp(min=0) + 1e-4 * values[-1]).sqrt()).float()
    return Seen(
        torch.stack([each.clip for each in seen.policies]) @ turn, seen.coarse.clip @ turn, seen.real.clip @ turn
    )


def study(model: str, seen: Views, blocks: Mapping[str, Seen]) -> list[Result]:
    truth = true_losses(seen, torch.arange(PICTURES))
    sets = sets_of(COUNT)
    apart = [true_losses(seen, others) for _, others in sets]
    default = [losses(seen, DEFAULT, rows, others) for rows, others in sets]

    def result(name: str, scores: Sequence[Losses]) -> Result:
        return judged(model, Scoring(name, DISTANCE, Weights()), COUNT, scores, default, truth, apart)

    results = [
        result(DEFAULT.name, default),
        result("the judges themselves", [true_losses(seen, rows) for rows, _ in sets]),
    ]
    for name, block in track(blocks.items(), description=f"{model}, {COUNT} pictures"):
        alone, equal, place = (
            [block_losses(seen, block, rows, weights) for rows, _ in sets]
            for weights in (Weights(1, 0), Weights(1, 1), Weights())
        )
        results += [
            result(f"{name} alone", alone),
            result(f"{name} + alignment", equal),
            result(f"{name} + 4 x alignment", place),
            result(f"default + {name}", [a + b for a, b in zip(default, alone, strict=True)]),
        ]
    return results


def table(model: str, results: Sequence[Result]) -> Table:
    shown = Table("objective", "Spearman", "of other pictures' truth", "over the default", "regret", title=model)
    for each in results:
        gain, low, high = each.gain
        shown.add_row(
            each.estimator,
            f"{each.spearman:.3f} ({each.low:.2f}..{each.high:.2f})",
            f"{each.apart:.3f}",
            f"{gain:+.3f} ({low:+.3f}..{high:+.3f})",
            f"{each.regret:.3f}",
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--models", nargs="*", choices=DEMO_NAMES, default=list(DEMO_NAMES))
    args = parser.parse_args()
    console = Console(highlight=False, width=140)
    eyes: dict[str, Eye] = {
        "Laplacian pyramid": laplacian,
        "Gabor energy": gabor,
        "random convolutions": random_network(),
        "trained on spoiling": load_network(),
    }
    for model in args.models:
        entries = policies(model)
        seen = views(model, entries, args.folder)
        blocks = {"whitened emoji-clip": whitened(seen)} | look(model, entries, eyes, args.folder)
        results = study(model, seen, blocks)
        console.print(table(model, results))
        document = {"model": model, "pictures": PICTURES, "results": [asdict(result) for result in results]}
        write_atomically(RESULTS / f"texture-{model}.json", json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
