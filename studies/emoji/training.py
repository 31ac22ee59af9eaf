"""What the training scripts share: loop, learning-rate schedule, moving average, checkpoints."""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from studies.emoji.data import WORK_DIR


def arguments(doc: str | None, *, steps: int, batch_size: int, learning_rate: float) -> argparse.ArgumentParser:
    """The options every training script has, with that script's defaults."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, default=WORK_DIR)
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch-size", type=int, default=batch_size)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser


def learning_rate_factor(step: int, steps: int, warmup: int = 200, decay_share: float = 0.25) -> float:
    """Linear warm-up, constant, then linear decay to zero over the last ``decay_share`` of the steps."""
    decay_steps = max(1, int(steps * decay_share))
    return min(1.0, (step + 1) / warmup, (steps - step) / decay_steps)


class MovingAverage:
    """Exponential moving average of a module's parameters, with a bias-free start."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for average, value in zip(self.module.parameters(), module.parameters(), strict=True):
            average.lerp_(value, 1 - decay)


def train(
    module: nn.Module,
    loss_of: Callable[[nn.Module, torch.Generator, int], Tensor],
    args: argparse.Namespace,
    *,
    name: str,
    ema_decay: float = 0.999,
    weight_decay: float = 0.01,
    save_every: int = 500,
    log_every: int = 100,
) -> nn.Module:
    """Run the loop over ``loss_of(module, generator, step)`` up to ``args.steps`` and return the averaged module.

    Resumes from ``<work-dir>/<name>.pt``, so that calling it again with more steps goes on
    where it stopped; every random draw of a step comes from a generator seeded by the seed
    and the step, so a resumed run equals an uninterrupted one.
    """
    device = torch.device(args.device)
    module.to(device, memory_format=torch.channels_last).train()
    average = MovingAverage(module, ema_decay)
    optimizer = torch.optim.AdamW(
        [p for p in module.parameters() if p.requires_grad],
        lr=args.learning_rate,
        weight_decay=weight_decay,
        betas=(0.9, 0.99),
    )
    path: Path = args.work_dir / f"{name}.pt"
    start = 0
    losses: list[list[float]] = []
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        module.load_state_dict(state["module"])
        average.module.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start, losses = state["step"], state["losses"]

    def save(step: int) -> None:
        state = {
            "module": module.state_dict(),
            "average": average.module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "losses": losses,
        }
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(name, total=args.steps, completed=start)
        running, summed = 0.0, 0
        for step in range(start, args.steps):
            generator = torch.Generator(device).manual_seed(args.seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = args.learning_rate * learning_rate_factor(step, args.steps)
            loss = loss_of(module, generator, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            average.update(module, step)
            running, summed = running + float(loss.detach()), summed + 1
            done = step + 1
            if done % log_every == 0:
                losses.append([float(done), running / summed])
                progress.console.print(f"{name} step {done} loss {running / summed:.5f}")
                running, summed = 0.0, 0
            if done % save_every == 0 or done == args.steps:
                save(done)
            progress.update(task, completed=done)
    return average.module
