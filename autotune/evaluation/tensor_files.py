"""Files of tensors that a run keeps."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from autotune.core.errors import RunFailed, reason_of


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors in a file, by name.

    Raises:
        RunFailed: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except SafetensorError as error:
        raise RunFailed(
            f"{path} is damaged ({reason_of(error)}); delete it and repeat the same command, which makes it anew"
        ) from error
    return tensors


def known(**tensors: Tensor | None) -> dict[str, Tensor]:
    """Those that are not None, for files that hold nothing else."""
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
