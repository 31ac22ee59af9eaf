"""Finding the units of a denoiser: U-Nets by their blocks, transformers by a table of their chains of blocks."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from autotune.pipelines.units.transformer import ARCHITECTURES, generic_structure, transformer_structure
from autotune.pipelines.units.unet import unet_structure
from autotune.plan.structure import Structure

_BUILDERS: dict[str, Callable[[nn.Module], Structure]] = {
    "UNet2DConditionModel": unet_structure,
    "UNet2DModel": unet_structure,
    **dict.fromkeys(ARCHITECTURES, transformer_structure),
}


def find_units(denoiser: nn.Module) -> Structure:
    """The structure of ``denoiser``, compiled by ``torch.compile`` or not; names are those of the plain module.

    A transformer of a class that no table lists is read off its lists of blocks.

    Raises:
        InputError: the denoiser holds nothing that looks like a chain of blocks, or a U-Net block
            whose data flow is not known.
    """
    plain: nn.Module = getattr(denoiser, "_orig_mod", denoiser)
    return _BUILDERS.get(type(plain).__name__, generic_structure)(plain)


__all__ = ["find_units"]
