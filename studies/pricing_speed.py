"""How long it takes to know what a policy costs.

``python -m studies.pricing_speed`` prints, for models of the sizes of SDXL and FLUX, the time of counting the FLOPs
of every unit from the config alone, at full size (target: under 15 s on 2 cores) and at each further size, and the
median times of pricing one policy of 50 steps after that, by a ``Pricer`` and by ``autotune.price``, which finds the
pricer of an earlier call (target: under 1 ms each). Nothing is read from disk.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import autotune
from autotune.core.cache_folder import VARIABLE
from autotune.cost import Cost, Pricer
from autotune.plan import accepted_scales
from autotune.policy import Policy
from studies.full_size import FLUX, SDXL
from studies.published import Published, weightless
from studies.sampling import random_policies

STEPS = 50


def counting(model: Published) -> tuple[Pricer, float, float]:
    """A pricer, the seconds of counting at full size, and the mean of those at smaller sizes."""
    started = time.perf_counter()
    pricer = Pricer(weightless(model), full_steps=STEPS, guided=model.guided, text_tokens=model.text_tokens)
    pricer.full_flops()
    first = time.perf_counter() - started
    scales = accepted_scales(pricer.height, pricer.width, pricer.structure.size_multiple)[:-1]
    chosen = scales[:: max(1, len(scales) // 3)]
    started = time.perf_counter()
    for scale in chosen:
        pricer.table(int(pricer.height * scale), int(pricer.width * scale))
    return pricer, first, (time.perf_counter() - started) / len(chosen)


def pricing(price: Callable[[Policy], Cost], policies: Sequence[Policy]) -> list[float]:
    """Milliseconds of one price of each policy; what they share is counted before."""
    taken = []
    price(policies[0])
    for policy in policies:
        # A search makes new policy objects.
        again = Policy.model_validate(policy.to_dict())
        started = time.perf_counter()
        price(again)
        taken.append((time.perf_counter() - started) * 1000)
    return taken


def measure(policies: int) -> list[dict[str, Any]]:
    rows = []
    for name, model in (("SDXL", SDXL), ("FLUX", FLUX)):
        pricer, first, further = counting(model)
        # Those that they are drawn with have priced them all before.
        chosen = list(islice(random_policies(counting(model)[0], [STEPS]), policies))
        taken = pricing(pricer.price, chosen)
        pipe = weightless(model)
        found = pricing(lambda policy, pipe=pipe: autotune.price(pipe, policy), chosen)  # type: ignore[misc]
        rows.append(
            {
                "model": name,
                "units": len(pricer.structure.units),
                "count_s": first,
                "further_s": further,
                "price_ms": statistics.median(taken),
                "slowest_ms": max(taken),
                "kept_ms": statistics.median(found),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policies", type=int, default=100)
    args = parser.parse_args()
    table = Table("model", "units", "full size", "each further size", "Pricer, median", "slowest", "price(), median")
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = folder
        for row in measure(args.policies):
            table.add_row(
                row["model"],
                str(row["units"]),
                f"{row['count_s']:.1f} s",
                f"{row['further_s']:.1f} s",
                f"{row['price_ms']:.2f} ms",
                f"{row['slowest_ms']:.2f} ms",
                f"{row['kept_ms']:.2f} ms",
            )
    console = Console()
    console.print(table)
    console.print(f"CPU, {torch.get_num_threads()} threads; targets: under 15 s and under 1 ms")


if __name__ == "__main__":
    main()
