"""What sharing prefixes spares a search, and which states are worth keeping for it.

``python -m studies.prefix_reuse`` prints for each shipped model:

- **states**: over policies sampled from the search space, and over walks through it that change one thing at a time
  as local search does, the share of denoiser calls that is skipped, by which states are kept and by how many of
  them fit; next to it the share that all policies before have in common with a policy.
- **time**: of pictures under a policy that differs from an earlier one after some steps only, made plainly and going
  on from the earlier one. That they are the same to the bit is checked.
"""

from __future__ import annotations

import random
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from autotune.cost import Pricer
from autotune.evaluation.generation import PictureMaker, picture_maker
from autotune.evaluation.inputs import rows_of_prompts
from autotune.models.shipped import demo_assets, demo_pipeline
from autotune.pipelines.bars import without_bars
from autotune.policy import CacheRule, Policy
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.runtime.prefix.keys import features_read, prefix_keys
from autotune.runtime.prefix.sharing import is_kept
from search_spaces import SearchSpace, space_for

SAMPLED, WALKS, MOVES = 150, 5, 60
ROOMS = (12, 25, 50, 1000)
PICTURES = 16
KEPT: dict[str, Callable[[int, int], bool]] = {
    "every state": lambda calls, of: True,
    "every second": lambda calls, of: calls % 2 == 0,
    "every third": lambda calls, of: calls % 3 == 0,
    "powers of two": lambda calls, of: calls & (calls - 1) == 0,
    "quarters": lambda calls, of: calls in (of // 4, of // 2, of * 3 // 4),
    "1, 2, every third (used)": lambda calls, of: is_kept(calls),
}


def main() -> None:
    console = Console()
    for model, unit in (("emoji-unet", "up_blocks.1"), ("emoji-dit", "transformer_blocks.4")):
        pipe = demo_pipeline(model)
        with without_bars(pipe):
            console.print(states(model, pipe), times(model, pipe, unit))


def states(model: str, pipe: Any) -> Table:
    """Skipped calls by what is kept: sampled policies / walks."""
    pricer, space = Pricer(pipe, full_steps=demo_assets(model).full_steps), space_for(pipe)
    sampled = [space.sample(seed) for seed in range(SAMPLED)]
    walks = [list(walk(space, random.Random(seed))) for seed in range(WALKS)]
    table = Table("states kept", *(f"{room} fit" for room in ROOMS), title=f"{model}: calls skipped, sampled / walks")
    for name, kept in KEPT.items():
        shares = [
            (skipped(sampled, pricer, kept, room), statistics.mean(skipped(w, pricer, kept, room) for w in walks))
            for room in ROOMS
        ]
        table.add_row(name, *(f"{a:.1%} / {b:.1%}" for a, b in shares))
    return table


def skipped(policies: Sequence[Policy], pricer: Pricer, kept: Callable[[int, int], bool], room: int) -> float:
    """The share of calls that is skipped where ``room`` states fit, as :class:`PrefixCache` does it."""
    held: OrderedDict[str, set[Any]] = OrderedDict()
    total = spared = 0
    for policy in policies:
        plan = pricer.plan(policy)
        calls, keys = len(plan.steps), prefix_keys(plan, policy.model_dump_json(include={"steps", "timesteps"}))
        start = 0
        for at in range(calls - 1, 0, -1):
            if keys[at] in held:
                held.move_to_end(keys[at])
                start = start or (at if features_read(plan, at) <= held[keys[at]] else 0)
        for at in range(start + 1, calls):
            if kept(at, calls):
                held.setdefault(keys[at], set()).update(features_read(plan, at))
                held.move_to_end(keys[at])
        while len(held) > room:
            held.popitem(last=False)
        total, spared = total + calls, spared + start
    return spared / total


def walk(space: SearchSpace, draw: random.Random) -> Iterator[Policy]:
    """Policies that differ from a sampled one in a computing step, a switch or the guidance; now and then go on."""
    at = space.sample(draw.randrange(10**6))
    for _ in range(MOVES):
        changed = neighbour(at, draw)
        if changed is None:
            at = space.sample(draw.randrange(10**6))
            continue
        yield changed
        if draw.random() < 0.25:
            at = changed


def neighbour(policy: Policy, draw: random.Random) -> Policy | None:
    """The policy with one thing changed; None where there is nothing to change."""
    document = policy.to_dict()
    changes: list[tuple[dict[str, Any], str, Any]] = [
        (rule, "compute_steps", sorted(set(rule["compute_steps"]) ^ {draw.randrange(1, policy.steps)}))
        for rule in document["cache"]
    ]
    shift = draw.choice([-2, -1, 1, 2])
    changes += [(stage, "until_step", stage["until_step"] + shift) for stage in document["resolution"]]
    if document["guidance"]:
        changes.append((document["guidance"], "stop_step", document["guidance"]["stop_step"] + shift))
    if not changes:
        return None
    holder, key, value = draw.choice(changes)
    holder[key] = value
    try:
        return Policy.model_validate(document)
    except ValidationError:
        return None


def times(model: str, pipe: Any, unit: str) -> Table:
    """Seconds with and without a shared beginning."""
    assets = demo_assets(model)
    prompts, steps = assets.tuning_prompts[:PICTURES], assets.full_steps
    plain = picture_maker(pipe, guidance_scale=assets.guidance_scale)
    even = list(range(0, steps, 2))
    table = Table("differs after", "plain", "first", "going on", "calls skipped", "memory", title=f"{model}: seconds")
    for after in (steps // 5, steps // 2, steps * 4 // 5):
        moved = [step + (step >= after) for step in even if step + (step >= after) < steps]
        first, second = (
            Policy(steps=steps, cache=(CacheRule(units=(unit,), compute_steps=tuple(computing)),))
            for computing in (even, moved)
        )
        cache = PrefixCache(2**30)
        shared = picture_maker(pipe, guidance_scale=assets.guidance_scale, prefixes=cache)
        timed(plain, second, prompts)
        expected, plainly = timed(plain, second, prompts)
        _, recording = timed(shared, first, prompts)
        found, going_on = timed(shared, second, prompts)
        if not torch.equal(found, expected):
            raise AssertionError(f"{model}: pictures differ after {after} steps")
        spared = sum(use.skipped for use in cache.take_uses())
        row = (f"{plainly:.2f}", f"{recording:.2f}", f"{going_on:.2f}")
        table.add_row(f"step {after}", *row, f"{spared} of {steps}", f"{cache.bytes / 2**20:.1f} MiB")
    return table


def timed(maker: PictureMaker, policy: Policy, prompts: Sequence[str]) -> tuple[torch.Tensor, float]:
    started = time.perf_counter()
    pictures = torch.cat(list(maker.pictures(policy, rows_of_prompts(prompts), range(len(prompts)))))
    return pictures, time.perf_counter() - started


if __name__ == "__main__":
    main()
