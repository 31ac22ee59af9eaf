"""The space of transformers: low resolution first, blocks and layers that reuse, guidance in some steps only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

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

_MAX_ORDER = 2
_LAYERS = ("self-attention", "joint-attention", "feed-forward")
_CROSS = ("cross-attention",)
# Units named one by one where no pattern fits; what a rule holds at most.
_MOST_NAMES = 64
# Shorter chains refine text or image before the denoising proper.
_LEAST_BLOCKS = 2


class TransformerSpace(DenoiserSpace):
    """Knobs for one transformer at one size.

    Two ways to reuse, which may go together: a range of blocks adds what it added before (Delta-DiT, arXiv
    2406.01125), and the layers inside of all blocks give what they gave before (FORA, PAB) or what that leads to
    (TaylorSeer).

    Args:
        structure: The transformer's units.
        height: Height of the latents at full size.
        width: Width of the latents at full size.
        default_steps: Steps of sampled policies.
        guided: Whether pictures are made with classifier-free guidance in two branches.
        solvers: The pipeline's own first.
    """

    levers = (
        *LOW_RESOLUTION,
        Lever("reuse", ("warm_up", "cool_down"), gathers=True),
        SECOND_WINDOW,
        Lever(
            "reuse_of_blocks",
            ("first_block", "blocks", "block_interval"),
            essential=("blocks", "block_interval"),
            part_of="reuse",
        ),
        Lever("reuse_of_layers", ("layer_interval",), essential=("layer_interval",), part_of="reuse"),
        Lever("forecasting", ("forecast",), essential=("forecast",), part_of="reuse_of_layers"),
        Lever("reuse_of_cross_attention", ("cross_interval",), essential=("cross_interval",), part_of="reuse"),
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
        self.blocks = repeated_blocks(structure)
        self.layers = patterns(structure, _LAYERS)
        self.cross_attention = patterns(structure, _CROSS)
        full, count = len(self.scales) - 1, len(self.blocks)
        cross, gate = bool(self.cross_attention), guided and bool(self.cross_attention)
        self.knobs = (
            *self.size_knobs(),
            Knob("first_block", 0, max(count - 1, 0), "the first of the blocks that are stepped over"),
            Knob("blocks", 0, count, "how many are; 0 none"),
            Knob("block_interval", 1, MAX_INTERVAL, "every how many steps they are computed", most=LONGEST),
            Knob(
                "layer_interval",
                1,
                MAX_INTERVAL if self.layers else 1,
                "the same for the layers in all blocks",
                most=LONGEST if self.layers else 1,
            ),
            Knob("forecast", 0, _MAX_ORDER, "order of the layers' extrapolation between computed steps; 0 reuses"),
            Knob(
                "cross_interval",
                1,
                MAX_INTERVAL if cross else 1,
                "the same for cross-attention",
                most=LONGEST if cross else 1,
            ),
            *self.schedule_knobs(),
            *self.guidance_knobs(guided, gate),
        )
        self.knobs += self.noise_knobs(self.solvers)
        self.repair_order = (
            *REPAIR_GUIDANCE,
            ("late_interval", -1),
            ("cross_interval", -1),
            ("layer_interval", -1),
            ("block_interval", -1),
            ("blocks", -1),
            *REPAIR_SIZES,
        )
        self.recipes = self._recipes(full, count, cross=cross, guided=guided)

    def _recipes(self, full: int, count: int, *, cross: bool, guided: bool) -> tuple[Recipe, ...]:
        plain = self.plain_values(
            first_block=0, blocks=0, block_interval=1, layer_interval=1, cross_interval=1, forecast=0
        )
        three_quarters = min(range(len(self.scales)), key=lambda index: abs(self.scales[index] - Fraction(3, 4)))
        half = min(range(len(self.scales)), key=lambda index: abs(self.scales[index] - Fraction(1, 2)))
        settings: dict[str, dict[str, int]] = {"fewer steps": {}, **self.solver_recipes()}
        if guided:
            settings |= self.guidance_recipes()
        if self.layers:
            # FORA reuses every layer, cross-attention included. In FORA (arXiv 2407.01425) and TaylorSeer (2503.06923)
            # the interval alone says when to compute, to the very end; that the last step computes is ours. PAB
            # (2408.12588) reuses down to timestep 100 of 1000, so that the last tenth computes in full.
            fora = {n: {"layer_interval": n, "cross_interval": n if cross else 1} for n in (2, 3)}
            taylor_seer = {"layer_interval": 3, "forecast": 1, "warm_up": 2}
            settings |= {f"FORA, interval {n}": values for n, values in fora.items()}
            settings["FORA, interval 3, last step computed"] = fora[3] | {"cool_down": 1}
            settings["TaylorSeer, interval 3"] = taylor_seer
            settings["TaylorSeer, interval 3, last step computed"] = taylor_seer | {"cool_down": 1}
            settings["PAB-like"] = {
                "layer_interval": 2, "cross_interval": 4 if cross else 1, "warm_up": 2, "cool_down": 2,
            }  # fmt: skip
        # Model-Optimizer's preset for PixArt leaves the last quarter of the blocks to compute in every step; the others
        # compute where the step's number is a multiple of three, be the last one among these or not.
        settings["all but the last quarter of the blocks every third step"] = {
            "blocks": count - count // 4,
            "block_interval": 3,
        }
        settings["back blocks every second step"] = {
            "first_block": count // 2,
            "blocks": count - count // 2,
            "block_interval": 2,
            "cool_down": 1,
        }
        if full:
            settings["half the steps at three quarters of the size"] = {"scale": three_quarters, "switch": PARTS // 2}
            settings["a fifth of the steps at half size"] = {"scale": half, "switch": PARTS // 5, "handoff": 1}
        if guided and cross:
            settings["T-GATE"] = {"guidance_stop": 2 * PARTS // 5, "gate": 1}
            settings["PostDiff for PixArt"] = {
                "scale": three_quarters, "switch": PARTS // 2, "guidance_stop": 3 * PARTS // 4, "gate": 1,
            }  # fmt: skip
        return tuple(Recipe(name, plain | values) for name, values in settings.items())

    def cache_rules(self, values: Mapping[str, int], schedule: Schedule, *, gated: bool) -> tuple[CacheRule, ...]:
        def compute(interval: int) -> tuple[int, ...]:
            # What is computed always is so later on, too.
            return schedule.computing_steps(interval) if interval > 1 else tuple(range(schedule.steps))

        rules = []
        stepped_over, when = self._range(values["first_block"], values["blocks"]), compute(values["block_interval"])
        if stepped_over and len(when) < schedule.steps:
            rules.append(CacheRule(units=stepped_over, mode="residual", compute_steps=when))
        # What guidance holds belongs to no rule of its own.
        cross = () if gated else self.cross_attention
        for units, interval in ((self.layers, values["layer_interval"]), (cross, values["cross_interval"])):
            when = compute(interval)
            if not units or len(when) == schedule.steps:
                continue
            wanted = values["forecast"] if units is self.layers else 0
            order = schedule.forecast_order(wanted, when)
            rules.append(
                CacheRule(units=units, mode="forecast" if order else "reuse", order=order or None, compute_steps=when)
            )
        return tuple(rules)

    def _range(self, first: int, count: int) -> tuple[str, ...]:
        """Names of ``count`` blocks from ``first`` on, one for each chain that they lie in."""
        chosen: dict[str, list[int]] = {}
        for name in self.blocks[first : first + count]:
            chain, _, number = name.rpartition(".")
            chosen.setdefault(chain, []).append(int(number))
        return tuple(
            f"{chain}.{numbers[0]}" + (f"-{numbers[-1]}" if len(numbers) > 1 else "")
            for chain, numbers in chosen.items()
        )


def repeated_blocks(structure: Structure) -> tuple[str, ...]:
    """Names of the blocks that add to a residual stream, in order of execution; without chains of a single block."""
    names = [unit.name for unit in structure.units if unit.kind == "block" and unit.streams]
    lengths: dict[str, int] = {}
    for name in names:
        lengths[name.rpartition(".")[0]] = lengths.get(name.rpartition(".")[0], 0) + 1
    return tuple(name for name in names if lengths[name.rpartition(".")[0]] >= _LEAST_BLOCKS)


def patterns(structure: Structure, kinds: Sequence[str]) -> tuple[str, ...]:
    """The shortest names for all units of ``kinds``: patterns such as ``**.attn1`` where these fit no other unit."""
    wanted = {index for kind in kinds for index in structure.of_kind(kind)}
    ends = dict.fromkeys(structure.units[index].name.rpartition(".")[2] for index in sorted(wanted))
    found = tuple(f"**.{end}" for end in ends)
    if wanted and set(structure.resolve(found)) == wanted:
        return found
    names = tuple(structure.units[index].name for index in sorted(wanted))
    return names if len(names) <= _MOST_NAMES else ()
