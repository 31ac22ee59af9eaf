"""What running under a policy costs besides what the policy computes.

``python -m studies.runtime_speed`` prints two figures, both ratios taken in one run:

- **overhead**: time under a policy that has hooks everywhere and computes everything, over the plain
  pipeline's; alternating runs, median over pairs. Target: at most 1.02.
- **efficiency**: over policies that take between 25 % and 80 % of the FLOPs, the share of the time over the
  share of the FLOPs, for the denoising loop. Target: at most 1.15 on ``emoji-dit`` at batch 16.

With a GPU, ``--gpu`` does the second with random weights of the size of SD1.5, SDXL, PixArt and FLUX in
bfloat16; target: at most 1.10. There a round times the full run and every policy once, in random order: a GPU
that nobody else uses keeps its speed for longer than a pair takes. Only the denoising loop is timed: prompts are
encoded before, latents are not decoded.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from autotune.cost import Pricer
from autotune.models.shipped import demo_assets, demo_pipeline
from autotune.plan.structure import Structure
from autotune.policy import CacheRule, Guidance, Policy, ResolutionStage
from autotune.runtime import applied
from studies.full_size import MODELS, workloads
from studies.workload import Workload

EFFICIENCY_RANGE = (0.25, 0.80)


def pairs(one: Callable[[], float], other: Callable[[], float], count: int) -> float:
    """Median over ``count`` alternating pairs of the ratio ``one`` / ``other``; the first pair warms up."""
    ratios = []
    for index in range(count + 1):
        # Whoever runs second in a pair finds warmer caches: take turns.
        first, second = (one, other) if index % 2 else (other, one)
        a, b = first(), second()
        ratios.append(a / b if index % 2 else b / a)
    return statistics.median(ratios[1:])


def rounds(runs: Sequence[Callable[[], float]], count: int) -> list[float]:
    """Medians over ``count`` rounds of each run's ratio to the first of ``runs``; one round more warms up."""
    order, ratios = random.Random(0), []
    for _ in range(count + 1):
        taken = {index: runs[index]() for index in order.sample(range(len(runs)), len(runs))}
        ratios.append([taken[index] / taken[0] for index in range(len(runs))])
    return [statistics.median(each) for each in zip(*ratios[1:], strict=True)]


def overhead(workload: Workload, count: int) -> float:
    structure = Pricer(workload.pipe).structure
    names = [block.name for block in structure.blocks] or [u.name for u in structure.units if u.kind == "block"]
    rule = CacheRule(units=tuple(names[-64:]), compute_steps=tuple(range(workload.steps)))
    policy = Policy(steps=workload.steps, cache=(rule,))

    def under_policy() -> float:
        with applied(workload.pipe, policy):
            return workload.run()

    def plain() -> float:
        workload.arguments["num_inference_steps"] = workload.steps
        try:
            return workload.run()
        finally:
            del workload.arguments["num_inference_steps"]

    return pairs(under_policy, plain, count)


def policies(structure: Structure, steps: int, guided: bool) -> Iterator[Policy]:
    """A spread of what a search proposes: fewer steps, reuse at several depths and intervals, sizes, guidance."""
    names = [block.name for block in structure.blocks] or [u.name for u in structure.units if u.kind == "block"]

    def reuse(share: float, interval: int, mode: Any = "reuse") -> dict[str, Any]:
        unit = names[min(round(share * len(names)), len(names) - 1)]
        order = 1 if mode == "forecast" else None
        rule = CacheRule(units=(unit,), mode=mode, order=order, compute_steps=tuple(range(0, steps, interval)))
        return {"cache": (rule,)}

    def lower(scale: float, until: int) -> dict[str, Any]:
        return {"resolution": (ResolutionStage(scale=scale, until_step=until, handoff="noise_matched"),)}

    cut: dict[str, Any] = {"guidance": Guidance(stop_step=steps // 2)} if guided else {}
    yield Policy(steps=steps // 2)
    yield Policy(steps=3 * steps // 4)
    for share, interval in ((0.5, 2), (0.75, 2), (0.75, 3), (0.9, 3), (0.9, 5)):
        yield Policy(steps=steps, **reuse(share, interval))
    yield Policy(steps=steps, **reuse(0.75, 3, "forecast"))
    for scale, until in ((0.5, steps // 2), (0.75, steps // 2)):
        yield Policy(steps=steps, **lower(scale, until))
    yield Policy(steps=steps, **lower(0.5, steps // 3), **reuse(0.75, 2))
    if guided:
        yield Policy(steps=steps, **cut)
        yield Policy(steps=steps, **cut, **reuse(0.75, 2))


def efficiency(
    workload: Workload, count: int, *, guided: bool = True, in_rounds: bool = False
) -> list[tuple[Policy, float, float]]:
    """For each policy in range its share of the FLOPs and of the time."""
    pricer = Pricer(workload.pipe, full_steps=workload.steps, guided=guided, text_tokens=workload.text_tokens)
    full = Policy(steps=workload.steps)
    priced = [(policy, pricer.price(policy).relative) for policy in policies(pricer.structure, workload.steps, guided)]
    chosen = [(policy, share) for policy, share in priced if EFFICIENCY_RANGE[0] <= share <= EFFICIENCY_RANGE[1]]

    def under(policy: Policy) -> Callable[[], float]:
        def run() -> float:
            with applied(workload.pipe, policy):
                return workload.run()

        return run

    if in_rounds:
        _, *taken = rounds([under(full), *(under(policy) for policy, _ in chosen)], count)
    else:
        taken = [pairs(under(policy), under(full), count) for policy, _ in chosen]
    return [(policy, share, time) for (policy, share), time in zip(chosen, taken, strict=True)]


def shipped(name: str, batch: int) -> Workload:
    """A shipped model with prompts encoded beforehand."""
    pipe = demo_pipeline(name)
    pipe.set_progress_bar_config(disable=True)
    assets = demo_assets(name)
    prompts = assets.tuning_prompts[:batch]
    call = dict(assets.call)
    encoded = pipe.encode_prompt(
        prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, **_of_encoder(pipe, call)
    )
    if len(encoded) == 2:
        arguments = {"prompt_embeds": encoded[0], "negative_prompt_embeds": encoded[1]}
    else:
        names = ("prompt_embeds", "prompt_attention_mask", "negative_prompt_embeds", "negative_prompt_attention_mask")
        arguments = dict(zip(names, encoded, strict=True)) | {"negative_prompt": None}
    arguments |= {"guidance_scale": assets.guidance_scale, **call}
    return Workload(name, pipe, arguments, assets.full_steps, batch)


def _of_encoder(pipe: Any, call: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in call.items() if key == "max_sequence_length"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=7, help="alternating pairs, or rounds, behind every ratio")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--gpu", action="store_true", help="full-size random weights on the GPU")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS], help="with --gpu, which of them")
    args = parser.parse_args()
    console = Console()
    if args.gpu:
        if not torch.cuda.is_available():
            raise SystemExit(
                "--gpu needs a CUDA device and torch finds none: leave it out to measure the shipped models"
            )
        console.print(f"{torch.cuda.get_device_name()}, bfloat16, torch {torch.__version__}")
        for workload, guided in workloads(args.models):
            _report(console, workload, efficiency(workload, args.pairs, guided=guided, in_rounds=True), 1.10)
        return
    console.print(f"CPU, {torch.get_num_threads()} threads, torch {torch.__version__}")
    for name in ("emoji-unet", "emoji-dit"):
        ratio = overhead(shipped(name, args.batch_size), args.pairs)
        console.print(f"{name}: a policy that computes everything takes {ratio:.3f} of the plain pipeline's time")
    for name in ("emoji-unet", "emoji-dit"):
        workload = shipped(name, args.batch_size)
        _report(console, workload, efficiency(workload, args.pairs), 1.15)


def _report(console: Console, workload: Workload, rows: list[tuple[Policy, float, float]], target: float) -> None:
    table = Table("policy", "FLOPs", "time", "time / FLOPs", title=f"{workload.name}, batch {workload.batch}")
    for policy, share, taken in rows:
        table.add_row(policy.id, f"{share:.3f}", f"{taken:.3f}", f"{taken / share:.3f}")
    console.print(table)
    ratios = [taken / share for _, share, taken in rows]
    console.print(
        f"time share / FLOP share over {len(ratios)} policies: median {statistics.median(ratios):.3f},"
        f" highest {max(ratios):.3f} (target: at most {target})"
    )


if __name__ == "__main__":
    main()
