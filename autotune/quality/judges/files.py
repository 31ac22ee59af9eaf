"""Where the files of judges lie: in a folder of the judge's own, or in the cache of the Hugging Face Hub.

A folder ``NAME`` in :func:`judges_folder` comes first and needs no network. Without one the files are those of the
Hub's own cache, and are fetched into it unless ``HF_HUB_OFFLINE`` forbids. Weights that torchvision publishes lie in
torch's folder instead (``TORCH_HOME``), as they do for every other program.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from autotune.core.cache_folder import cache_folder
from autotune.core.errors import InputError, reason_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "VARIABLE",
    "HubFile",
    "find",
    "judges_folder",
    "known_as",
    "refuse_damaged",
    "tensors_of",
    "torchvision_weights",
]

VARIABLE = "POSTDIFF_JUDGES"
"""Environment variable that names the folder in which every judge has one of its own."""

_SAMPLE = 1 << 16
_REASON = 80


@dataclass(frozen=True)
class HubFile:
    """A file of a repository on the Hub.

    Attributes:
        repository: ``owner/name``.
        names: What it is called there; of several the first that exists is taken, safetensors before pickles.
    """

    repository: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]


def judges_folder() -> Path:
    """The folder in which every judge has one of its own; it need not exist."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else cache_folder() / "judges"


def find(judge: str, files: Sequence[HubFile]) -> dict[str, Path]:
    """Where each file of a judge lies on this machine, fetching those that the Hub's cache lacks.

    Returns:
        The paths by :attr:`HubFile.name`.

    Raises:
        InputError: One of them is missing and cannot be had.
    """
    own = judges_folder() / judge
    if not own.is_dir():
        return {file.name: _fetched(judge, file, own, files) for file in files}
    found = {file.name: next((own / name for name in file.names if (own / name).is_file()), None) for file in files}
    for file in files:
        if found[file.name] is None:
            raise InputError(f"judge {judge}: {own} lacks {file.name}; put that of {file.repository} there")
    return {name: path for name, path in found.items() if path is not None}


def known_as(judge: str, paths: Iterable[Path]) -> str:
    """A judge's name, and after an ``@`` what is in its files: their sizes, beginnings and ends, not their places."""
    content = hashlib.sha256()
    for path in sorted(paths, key=lambda path: path.name):
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _SAMPLE))
            tail = stream.read()
            stream.seek(0)
            content.update(f"{path.name} {size}".encode() + stream.read(_SAMPLE) + tail)
    return f"{judge}@{content.hexdigest()[:16]}"


def tensors_of(judge: str, path: Path) -> Mapping[str, Tensor]:
    """The tensors in a file by name, on the CPU: of safetensors, or of a pickle that holds nothing but tensors.

    Raises:
        InputError: It is damaged or holds something else.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, UnpicklingError, EOFError, SafetensorError) as error:
        raise refuse_damaged(judge, path, error) from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise refuse_damaged(judge, path, TypeError("it does not hold tensors by name"))
    return content


def torchvision_weights(judge: str, url: str) -> Mapping[str, Tensor]:
    """The tensors of a file that torchvision publishes, from torch's folder or fetched into it.

    Raises:
        InputError: They cannot be had.
    """
    import torch

    try:
        weights: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
            url, map_location="cpu", progress=False, check_hash=True, weights_only=True
        )
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise InputError(
            f"judge {judge}: its weights cannot be had ({reason_of(error, _REASON)}); put the file of {url} into "
            f"{Path(torch.hub.get_dir()) / 'checkpoints'}"
        ) from error
    return weights


def refuse_damaged(judge: str, path: Path, error: BaseException) -> InputError:
    """What to raise where a file is there, but not what it should be."""
    return InputError(f"judge {judge}: {path} cannot be loaded ({reason_of(error)}); fetch it again")


def _fetched(judge: str, file: HubFile, own: Path, files: Sequence[HubFile]) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    reason = ""
    for name in file.names:
        try:
            return Path(hf_hub_download(file.repository, name))
        except LocalEntryNotFoundError:
            why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub cannot be reached"
            reason = reason or f"{why} and the Hub's cache does not hold it"
        except EntryNotFoundError as error:
            reason = reason or reason_of(error, _REASON)
        except Exception as error:  # Everything from lost connections to refused tokens, of several libraries.
            reason = reason or reason_of(error, _REASON)
            break
    wanted = " and ".join(each.name for each in files)
    raise InputError(
        f"judge {judge} needs {file.name} of {file.repository}, which cannot be had ({reason}); put {wanted} into {own}"
    )
