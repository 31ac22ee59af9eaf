"""All hooks of a policy on the units and blocks of one denoiser."""

from __future__ import annotations

from torch import nn

from autotune.plan import resolve_rules, taken_at
from autotune.plan.structure import Structure
from autotune.policy import Policy
from autotune.runtime.hooks import BlockHook, UnitHook, is_compiled
from autotune.runtime.models import root_of


class HookSet:
    """A hook for every unit that some step does not compute, and for every block that may be stepped over.

    Attributes:
        denoiser: that they are on.
        units: the hooks of units, by the unit's number.
        blocks: the hooks of blocks.
        copies: whether features come out of compiled code, which may write over them, and must be copied once more.
    """

    def __init__(self, denoiser: nn.Module, structure: Structure, policy: Policy) -> None:
        self.denoiser = denoiser
        modules = dict(root_of(denoiser).named_modules())
        rules = resolve_rules(policy, structure)
        residuals = {u: first for rule in rules if rule.mode == "residual" for u, first in rule.units.items()}
        units = units_ever_not_computed(policy, structure) | set(residuals) | set(residuals.values())
        self.copies = False
        self.units = {
            unit: UnitHook(structure.units[unit], modules[structure.units[unit].name]) for unit in sorted(units)
        }
        for unit, first in residuals.items():
            self.units[unit].residual = True
            self.units[unit].first = self.units[first]
        blocks = {
            block.name: BlockHook(
                block.units,
                self.units[block.last],
                None if block.outputs is None else [self.units[output] for output in block.outputs],
            )
            for block in structure.blocks
            if all(unit in self.units for unit in (block.last, *(block.outputs or ())))
        }
        self.blocks = tuple(blocks.values())
        self._by_module: dict[str, UnitHook | BlockHook] = {
            **{structure.units[unit].name: hook for unit, hook in self.units.items()},
            **blocks,
        }
        self._places = [hook.place for hook in self.units.values()] + [hook.place for hook in self.blocks]

    def attach(self, denoiser: nn.Module) -> None:
        """Put every hook where it belongs, also after the denoiser was compiled, offloaded or given LoRA layers."""
        self.denoiser = denoiser
        modules = dict(root_of(denoiser).named_modules())
        compiled = {name for name, module in modules.items() if name and is_compiled(module)}
        whole = self.copies = is_compiled(denoiser)
        for name, hook in self._by_module.items():
            parts = name.split(".")
            enclosed = whole or any(".".join(parts[:count]) in compiled for count in range(1, len(parts)))
            outside = name in compiled and not enclosed
            hook.place.move(modules[name], outside=outside)

    def kept(self) -> bool:
        """Whether every hook is still where :meth:`attach` put it."""
        return all(place.kept() for place in self._places)

    def leave(self) -> None:
        """Take every hook off."""
        for hook in self._by_module.values():
            hook.place.leave()

    def rest(self) -> None:
        """Have everything computed as if there were no hooks, which hold nothing."""
        for hook in self.units.values():
            hook.rest()
        for block in self.blocks:
            block.skip = False

    def forget(self) -> None:
        """Rest, and forget what is known of the shapes of outputs."""
        self.rest()
        for hook in self.units.values():
            hook.shape = None


def units_ever_not_computed(policy: Policy, structure: Structure) -> frozenset[int]:
    """Units that some step takes from memory or skips, at any size and with any guidance; the others need no hook."""
    rules = resolve_rules(policy, structure)
    units: set[int] = set()
    for step in range(policy.steps):
        taken = taken_at(step, rules, structure)
        units |= set(taken) | (set(range(len(structure.units))) - structure.needed(taken))
    return frozenset(units)
