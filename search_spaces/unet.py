"""The space of U-Nets: low resolution first, reuse of one up-block output, guidance in some steps only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal

from autotune.plan import accepted_scales
from autotune.plan.structure import Structure
from autotune.policy import CacheRule
from search_spaces.denoiser import (
    GUIDANCE,
    LONGEST,
    LOW_RESOLUTION,
    MAX_INTERVAL,
    NOISE,
    REPAIR_GUIDANCE,
    REPAIR_SIZES,
    SECOND_WINDOW,
    STRENGTH,
    DenoiserSpace,
)
from search_spaces.knobs import Knob
from search_spaces.levers import Lever
from search_spaces.schedule import PARTS, Schedule
from search_spaces.solvers import OWN, Solver
from search_spaces.space import Recipe

_MAX_SECOND_INTERVAL = 4
_MAX_ORDER = 2


class UNetSpace(DenoiserSpace):
    """Knobs for one U-Net at one size.

    Args:
        structure: The U-Net's units.
        height: Height of the latents at full size.
        width: Width of the latents at full size.
        default_steps: Steps of sampled policies.
        guided: Whether pictures are made with classifier-free guidance.
        solvers: The pipeline's own first.
    """

    levers = (
        *LOW_RESOLUTION,
        Lever("reuse", ("depth", "interval", "warm_up", "cool_down"), essential=("depth", "interval")),
        SECOND_WINDOW,
        Lever(
            "reuse_at_two_depths",
            ("second_depth", "second_interval"),
            essential=("second_depth", "second_interval"),
            part_of="reuse",
        ),
        Lever("forecasting", ("forecast",), essential=("forecast",), part_of="reuse"),
        *GUIDANCE,
        *NOISE,
        STRENGTH,
    )

    def __init__(
        self,
        structure: Structure,
        height: int,
        width: int,
        default_steps: int,
        *,
        guided: bool = True,
        resized: bool = True,
        solvers: Sequence[Solver] = (OWN,),
    ) -> None:
        self.default_steps = default_steps
        self.solvers = tuple(solvers)
        self.scales = accepted_scales(height, width, structure.size_multiple)[0 if resized else -1 :]
        self.reusable = reusable_outputs(structure)
        full, depth = len(self.scales) - 1, len(self.reusable)
        gate = guided and bool(structure.of_kind("cross-attention"))
        self.knobs = (
            *self.size_knobs(),
            Knob("depth", 0, depth, "which output is reused: 0 none, the highest leaves least to compute"),
            Knob("interval", 1, MAX_INTERVAL, "every how many steps that output is computed", most=LONGEST),
            *self.schedule_knobs(),
            Knob(
                "second_depth",
                0,
                max(depth - 1, 0),
                "a deeper output that is reused besides, where it lies below the first; 0 none",
            ),
            Knob(
                "second_interval",
                1,
                _MAX_SECOND_INTERVAL if depth > 1 else 1,
                "of the steps that compute the first output, every how many-th computes the deeper one",
                most=LONGEST if depth > 1 else 1,
            ),
            Knob("forecast", 0, _MAX_ORDER, "order of the extrapolation between computed steps; 0 reuses as it is"),
            *self.guidance_knobs(guided, gate),
        )
        self.knobs += self.noise_knobs(self.solvers)
        self.repair_order = (
            *REPAIR_GUIDANCE,
            ("second_interval", -1),
            ("second_depth", -1),
            ("late_interval", -1),
            ("interval", -1),
            ("depth", -1),
            *REPAIR_SIZES,
        )
        plain = self.plain_values(depth=0, interval=1, forecast=0)
        half = min(range(len(self.scales)), key=lambda index: abs(self.scales[index] - Fraction(1, 2)))
        # DeepCache's branch 0 keeps the last up layer and conv_in alive, branch 1 one layer more.
        branch_0 = {"depth": depth}
        branch_1 = {"depth": max(depth - 1, 0)}
        # In DeepCache (arXiv 2312.00858, section 3.3), TaylorSeer and PostDiff the interval alone says when to compute,
        # to the very end; that the last step computes is ours.
        mix = {"scale": half, "switch": PARTS // 2}
        settings: dict[str, dict[str, int]] = {
            "fewer steps": {},
            **self.solver_recipes(),
            **(self.guidance_recipes() if guided else {}),
            "DeepCache, interval 2": branch_0 | {"interval": 2},
            "DeepCache, interval 3": branch_0 | {"interval": 3},
            "DeepCache, interval 3, one layer more": branch_1 | {"interval": 3},
            "DeepCache, interval 3, last step computed": branch_0 | {"interval": 3, "cool_down": 1},
            "TaylorSeer, interval 3": branch_0 | {"interval": 3, "forecast": 1},
        }
        if full:
            settings["half the steps at half size"] = mix
        if guided:
            both = mix | branch_1 | {"interval": 2, "guidance_stop": 3 * PARTS // 4}
            settings["half size, cache, guidance cut"] = both
        if gate:
            settings["T-GATE"] = {"guidance_stop": 2 * PARTS // 5, "gate": 1}
        self.recipes = tuple(Recipe(name, plain | values) for name, values in settings.items())

    def cache_rules(self, values: Mapping[str, int], schedule: Schedule, *, gated: bool) -> tuple[CacheRule, ...]:
        compute = schedule.computing_steps(values["interval"])
        if values["depth"] == 0 or values["interval"] == 1 or len(compute) == schedule.steps:
            return ()

        def rule(depth: int, when: tuple[int, ...], order: int) -> CacheRule:
            mode: Literal["reuse", "forecast"] = "forecast" if order else "reuse"
            return CacheRule(units=(self.reusable[depth - 1],), mode=mode, order=order or None, compute_steps=when)

        rules = [rule(values["depth"], compute, schedule.forecast_order(values["forecast"], compute))]
        # Where the first output is reused nothing reads the deeper one, so it computes in steps of the first only.
        rarer = schedule.rarer(compute, values["second_interval"])
        if 0 < values["second_depth"] < values["depth"] and len(rarer) < len(compute):
            order = schedule.forecast_order(values["forecast"], rarer, compute)
            rules.append(rule(values["second_depth"], rarer, order))
        return tuple(rules)


def reusable_outputs(structure: Structure) -> tuple[str, ...]:
    """Names of the up-block outputs worth reusing, from the one that saves least to the one that saves most.

    These are each up block's own output and, inside the last two, what their layers but the
    final one hand on: the places DeepCache branches off. The very last output is left out:
    reusing it repeats the whole prediction, which for the samplers in use is one longer step.
    """
    blocks = [block for block in structure.blocks if block.name.startswith("up_blocks.")]
    names: list[str] = []
    for position, block in enumerate(blocks):
        if position >= len(blocks) - 2:
            layers = [structure.units[index] for index in block.units if structure.units[index].kind != "upsampler"]
            # Every resnet starts a layer, so the unit before one is the output of the layer before.
            names += [unit.name for unit, after in zip(layers, layers[1:], strict=False) if after.kind == "resnet"]
        names.append(block.name)
    return tuple(names[:-1])
