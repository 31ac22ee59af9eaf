"""All hooks of one or several policies on the units and blocks of one denoiser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from autotune.plan import resolve_rules, taken_at
from autotune.plan.structure import Structure
from autotune.policy import Policy
from autotune.runtime.hooks import BlockHook, UnitHook, is_compiled
from autotune.runtime.models import root_of


class HookSet:
    """A hook for every unit that some step of a policy does not compute, and for every block that may be stepped over.

    Several policies share hooks, which stay where they are whichever of them a call follows: compiled code looks at
    what its modules have in place of their forwards. Hooks that a policy does not use rest in its calls.

    Attributes:
        denoiser: that they are on.
        copies: whether features come out of compiled code, which may write over them, and must be copied once more.
    """

    def __init__(self, denoiser: nn.Module, structure: Structure, policies: Iterable[Policy]) -> None:
        self.denoiser = denoiser
        self.copies = False
        modules = dict(root_of(denoiser).named_modules())
        uses = [(_residuals(policy, structure), units_ever_not_computed(policy, structure)) for policy in policies]
        wanted = [units | set(residuals) | set(residuals.values()) for residuals, units in uses]
        hooks = {
            unit: UnitHook(structure.units[unit], modules[structure.units[unit].name])
            for unit in sorted(set().union(*wanted))
        }
        steps_over = {
            block.name: (block.last, *(block.outputs or ()))
            for block in structure.blocks
            if any(units.issuperset((block.last, *(block.outputs or ()))) for units in wanted)
        }
        blocks = {
            block.name: BlockHook(
                block.units,
                hooks[block.last],
                None if block.outputs is None else [hooks[output] for output in block.outputs],
            )
            for block in structure.blocks
            if block.name in steps_over
        }
        self.shares = tuple(
            HookShare(
                self,
                {unit: hooks[unit] for unit in sorted(units)},
                tuple(hook for name, hook in blocks.items() if units.issuperset(steps_over[name])),
                {unit: hooks[first] for unit, first in residuals.items()},
            )
            for units, (residuals, _) in zip(wanted, uses, strict=True)
        )
        """What each of the policies uses, in their order."""
        self._by_module: dict[str, UnitHook | BlockHook] = {
            **{structure.units[unit].name: hook for unit, hook in hooks.items()},
            **blocks,
        }
        self._places = [hook.place for hook in hooks.values()] + [hook.place for hook in blocks.values()]

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


class HookShare:
    """Those of a denoiser's hooks that one policy uses.

    Attributes:
        all: the hooks of all policies.
        units: the hooks of units, by the unit's number.
        blocks: the hooks of blocks.
        residuals: for units whose residual is kept, the hook of the first block of their range.
    """

    def __init__(
        self,
        hooks: HookSet,
        units: Mapping[int, UnitHook],
        blocks: tuple[BlockHook, ...],
        residuals: Mapping[int, UnitHook],
    ) -> None:
        self.all = hooks
        self.units = units
        self.blocks = blocks
        self.residuals = residuals

    @property
    def denoiser(self) -> nn.Module:
        return self.all.denoiser

    @property
    def copies(self) -> bool:
        """See :class:`HookSet`."""
        return self.all.copies

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


def _residuals(policy: Policy, structure: Structure) -> dict[int, int]:
    """The units that keep output minus input, with the first block of their range."""
    rules = resolve_rules(policy, structure)
    return {unit: first for rule in rules if rule.mode == "residual" for unit, first in rule.units.items()}
