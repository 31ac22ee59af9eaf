"""Train a small convolutional network that tells what was done to a picture, and so has to see texture.

``python -m studies.proxy.spoiling_network`` shows it the emoji data, spoiled in ten ways and strengths, and asks for
the way, the strength, the emoji's name and its style: learning to judge quality by telling distortions apart, as
CONTRIQUE does (Madhusudana et al. 2021, arXiv 2110.13266). A quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.progress import track
from safetensors.torch import load_file
from torch import Tensor, nn

from autotune.quality.tensors import write_tensors
from studies.emoji.data import load
from studies.proxy.pictures import FOLDER
from studies.proxy.spoiling import blurred, compressed, faded

WEIGHTS = FOLDER / "spoiling-network.safetensors"
WIDTHS = (16, 32, 64, 64, 128, 128)
STRIDES = (1, 2, 2, 1, 2, 1)
EPOCHS = 32
BATCH = 100
RATE = 4e-3
_MAX_SHIFT = 4
# Pictures of a batch that are spoiled alike.
_GROUP = 10


class SpoilingNetwork(nn.Module):
    """Convolutions; the features are the channels' means after the second, fourth and sixth."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, width, 3, stride, 1, bias=False, padding_mode="replicate"),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            )
            for before, width, stride in zip(inputs, WIDTHS, STRIDES, strict=True)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Features (N, 224) of pictures (N, 3, 64, 64) uint8."""
        values, means = (pictures.float() / 255 - 0.5) * 4, []
        for layer in self.layers:
            values = layer(values)
            means.append(values.mean((2, 3)))
        return torch.cat(means[1::2], 1)


def load_network(path: Path = WEIGHTS) -> SpoilingNetwork:
    if not path.is_file():
        raise SystemExit(f"There is no {path}: run python -m studies.proxy.spoiling_network first.")
    network = SpoilingNetwork()
    network.load_state_dict(load_file(path))
    return network.eval().requires_grad_(False)


def _warped(cells: int, pixels: float) -> Callable[[Tensor, float], Tensor]:
    """Pushed about, differently in each of ``cells`` x ``cells`` places."""

    def warped(pictures: Tensor, strength: float) -> Tensor:
        count, side = len(pictures), pictures.shape[-1]
        coarse = torch.randn(count, 2, cells, cells) * 2 * pixels * (0.2 + strength) / side
        pushed = F.interpolate(coarse, (side, side), mode="bicubic").permute(0, 2, 3, 1)
        grid = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), list(pictures.shape), align_corners=False)
        values = F.grid_sample(pictures.float(), grid + pushed, padding_mode="border", align_corners=False)
        return _bytes(values)

    return warped


def _noisy(cells: int) -> Callable[[Tensor, float], Tensor]:
    def noisy(pictures: Tensor, strength: float) -> Tensor:
        noise = torch.randn(len(pictures), 3, cells, cells)
        if cells != pictures.shape[-1]:
            noise = F.interpolate(noise, pictures.shape[-2:], mode="bicubic")
        return _bytes(pictures + 255 * (0.02 + 0.2 * strength) * noise)

    return noisy


def _sharpened(pictures: Tensor, strength: float) -> Tensor:
    values = pictures.float()
    return _bytes(values + (0.5 + 3 * strength) * (values - blurred(pictures, 1).float()))


def _blended(pictures: Tensor, strength: float) -> Tensor:
    values = pictures.float()
    return _bytes(values.lerp(values.roll(1, 0), 0.1 + 0.35 * strength))


WAYS: Sequence[Callable[[Tensor, float], Tensor]] = (
    lambda pictures, strength: pictures,
    lambda pictures, strength: blurred(pictures, 0.4 + 1.6 * strength),
    lambda pictures, strength: compressed(pictures, 10 + 85 * strength),
    lambda pictures, strength: faded(pictures, 0.1 + 0.7 * strength),
    _noisy(64),
    _noisy(16),
    _warped(8, 2.0),
    _warped(4, 5.0),
    _sharpened,
    _blended,
)
"""The first one does nothing; strengths are from 0 to 1."""


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def _shifted(pictures: Tensor) -> Tensor:
    padded = F.pad(pictures.float(), (_MAX_SHIFT,) * 4, mode="replicate").to(torch.uint8)
    top, left = torch.randint(2 * _MAX_SHIFT + 1, (2,)).tolist()
    height, width = pictures.shape[-2:]
    return padded[..., top : top + height, left : left + width]


def _numbered(words: Sequence[str]) -> tuple[Tensor, int]:
    known = {word: number for number, word in enumerate(sorted(set(words)))}
    return torch.tensor([known[word] for word in words]), len(known)


def train(epochs: int = EPOCHS) -> SpoilingNetwork:
    torch.manual_seed(0)
    images, captions, _ = load()
    names, name_count = _numbered([caption.split(" ", 1)[1] for caption in captions])
    styles, style_count = _numbered([caption.split(" ", 1)[0] for caption in captions])
    network = SpoilingNetwork()
    heads = nn.ModuleList(nn.Linear(WIDTHS[-1], count) for count in (name_count, style_count, len(WAYS), 1))
    parameters = [*network.parameters(), *heads.parameters()]
    steps = epochs * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(parameters, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for step in track(range(steps), description="training"):
        if step % (len(images) // BATCH) == 0:
            order = torch.randperm(len(images))
        start = step % (len(images) // BATCH) * BATCH
        rows = order[start : start + BATCH]
        ways = torch.randint(len(WAYS), (BATCH // _GROUP,)).repeat_interleave(_GROUP)
        strengths = torch.rand(BATCH // _GROUP).repeat_interleave(_GROUP)
        groups = zip(_shifted(images[rows]).split(_GROUP), ways[::_GROUP], strengths[::_GROUP], strict=True)
        seen = network(torch.cat([WAYS[int(way)](group, float(strength)) for group, way, strength in groups]))
        name, style, way, strength = (head(seen[:, -WIDTHS[-1] :]) for head in heads)
        spoiled = ways > 0
        loss = (
            0.5 * F.cross_entropy(name, names[rows])
            + F.cross_entropy(style, styles[rows])
            + F.cross_entropy(way, ways)
            + 5 * (strength[:, 0] - strengths)[spoiled].square().sum() / BATCH
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(args.out, train().state_dict(), {})


if __name__ == "__main__":
    main()
