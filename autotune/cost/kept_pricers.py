"""The price of one policy, by pricers that are kept by pipeline.

To make a pricer takes much longer than a price: a scheduler is tried, configurations are digested, files are looked
for. One is therefore kept for as long as its pipeline lives and is what it was: the same components with the same
settings and the same modules inside of the denoiser. A LoRA, another scheduler or an edited configuration make another.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from autotune.cost.hardware_profile import Profile, load_profile
from autotune.cost.pricing import Pricer
from autotune.cost.work import Cost
from autotune.pipelines.families import family_of
from autotune.policy import Policy
from autotune.runtime.models import root_of

_PLAIN = (bool, int, float, str, tuple)

# PyTorch's own modules that have none inside and would not call any: two in three of SDXL's.
_LEAVES = frozenset(
    {nn.Linear, nn.Conv2d, nn.Conv3d, nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.Dropout, nn.Identity}
    | {nn.SiLU, nn.GELU, nn.ReLU}
)


@dataclass
class _Kept:
    """Pricers of a pipeline in one state, by size and target."""

    state: _State
    pricers: dict[Hashable, Pricer] = field(default_factory=dict)


_kept: WeakKeyDictionary[Any, _Kept] = WeakKeyDictionary()


def price(
    pipe: Any,
    policy: Policy,
    *,
    height: int | None = None,
    width: int | None = None,
    batch_size: int = 1,
    target: Profile | str | os.PathLike[str] | None = None,
) -> Cost:
    """Price one policy; see :class:`Pricer` for other calls than the pipeline's usual one.

    What was counted is kept for as long as the pipeline lives, so that further prices take under a millisecond.

    Args:
        batch_size: pictures in one call of the pipeline.
        target: a hardware profile (:func:`autotune.cost.measure_profile`), or its file, to predict milliseconds with.

    Raises:
        PolicyError: the policy does not fit the pipeline.
        ProfileError: the profile cannot be read, is of something else, or has no times for this batch size.

    Example:
        >>> cost = autotune.price(autotune.demo_pipeline(), autotune.Policy(steps=8))
        >>> cost.relative, cost.flops, cost.macs_conv_linear, cost.cache_bytes, cost.latency_ms
        (0.4, 6183419904, 3049766912, 0, None)
    """
    profile = load_profile(target) if isinstance(target, str | os.PathLike) else target
    return pricer_for(pipe, height, width, profile).price(policy, batch_size)


def pricer_for(pipe: Any, height: int | None, width: int | None, target: Profile | None) -> Pricer:
    """``Pricer(pipe, height, width, target=target)``, kept from an earlier call where nothing it reads has changed.

    Args:
        pipe: A diffusers pipeline; it is not kept alive.
        height: Pixels; None is the native height.
        width: Pixels; None is the native width.
        target: Not as a file, whose content may change.

    Raises:
        ProfileError: as :class:`autotune.cost.Pricer` does.
    """
    state, kept = _State.of(pipe), _kept.get(pipe)
    if kept is None or kept.state != state:
        kept = _kept[pipe] = _Kept(state)
    key = (height, width, id(target))
    if key not in kept.pricers:
        made = Pricer(pipe, height, width, target=target)
        # Kept as it is, it would keep its pipeline. What it has counted is shared by all copies.
        kept.pricers[key] = _of(made, None)
    return _of(kept.pricers[key], pipe)


def _of(pricer: Pricer, pipe: Any) -> Pricer:
    other = copy.copy(pricer)
    other._pipe = pipe
    return other


@dataclass(frozen=True)
class _State:
    """All that a pricer reads of a pipeline, in a form that takes little time to compare."""

    settings: Mapping[str, object]
    components: tuple[int, ...]
    configurations: tuple[Mapping[str, object], ...]
    modules: tuple[int, ...]
    types: tuple[type, ...]
    itemsize: int
    variant: tuple[Hashable, ...]

    @staticmethod
    def of(pipe: Any) -> _State:
        components = [vars(pipe).get(name) for name in pipe.config if not name.startswith("_")]
        settings = {name: each for name, each in vars(pipe).items() if name[0] != "_" and isinstance(each, _PLAIN)}
        lengths = {f"{number}": getattr(each, "model_max_length", None) for number, each in enumerate(components)}
        configurations = [getattr(each, "config", None) for each in components]
        family = family_of(pipe)
        denoiser = root_of(family.denoiser(pipe))
        modules = _modules(denoiser)
        return _State(
            settings={**settings, **lengths},
            components=tuple(map(id, components)),
            configurations=tuple(dict(each) for each in configurations if isinstance(each, Mapping)),
            modules=tuple(map(id, modules)),
            types=tuple(map(type, modules)),
            itemsize=next(denoiser.parameters()).element_size(),
            variant=family.variant,
        )


def _modules(root: nn.Module) -> list[nn.Module | None]:
    """As ``root.modules()``, but much faster: what occurs twice comes twice, and a place without a module as None."""
    found: list[nn.Module | None] = [root]
    for module in found:
        # To ask a leaf for its modules would take longest of all: nothing of it is in the processor's cache.
        if type(module) not in _LEAVES and module is not None and (children := module._modules):
            found.extend(children.values())
    return found
