"""Finding the units of a denoiser: one module per architecture, looked up by class name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from autotune.errors import InputError
from autotune.structure import Structure
from autotune.units.unet import unet_structure

if TYPE_CHECKING:
    from torch import nn

_BUILDERS: dict[str, Callable[[nn.Module], Structure]] = {"UNet2DConditionModel": unet_structure}


def find_units(denoiser: nn.Module) -> Structure:
    """The structure of ``denoiser``.

    Raises:
        InputError: no builder knows its class.
    """
    name = type(denoiser).__name__
    if name not in _BUILDERS:
        raise InputError(f"{name} is not supported yet; supported denoisers: {', '.join(sorted(_BUILDERS))}")
    return _BUILDERS[name](denoiser)


__all__ = ["find_units"]
