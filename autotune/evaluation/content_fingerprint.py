"""Telling whether two runs use the same model, scorer and reference, wherever these lie on disk."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autotune.evaluation.folders import files_in
from autotune.quality import Gaussian, Reference

_VALUES_PER_TENSOR = 16


def weights_digest(pipe: Any) -> str:
    """A hash of device, dtype and some of the weights of all models in a pipeline.

    The first few values of every tensor: any training changes them, and a model of many
    gigabytes is read in a moment.
    """
    content = hashlib.sha256(f"{torch.device(pipe.device).type} {pipe.dtype}".encode())
    models = ((name, part) for name, part in sorted(pipe.components.items()) if isinstance(part, nn.Module))
    for name, model in models:
        tensors = [tensor.detach().flatten()[:_VALUES_PER_TENSOR].float() for tensor in model.state_dict().values()]
        content.update(name.encode())
        content.update(torch.cat(tensors).cpu().numpy().tobytes())
    return content.hexdigest()[:16]


def content_fingerprint(thing: object) -> str:
    """What a scorer or reference is called, and after an ``@`` what is in it.

    A file or folder is known by its content, so that it may be moved; companion files such as ``.DS_Store`` are no
    part of it. None is the full run.
    """
    if thing is None:
        return "the full run"
    if isinstance(thing, Reference):
        return content_fingerprint(thing.gaussian)
    if isinstance(thing, Gaussian):
        return f"statistics@{hashlib.sha256(thing.mean.numpy().tobytes()).hexdigest()[:16]}"
    if not isinstance(thing, str | os.PathLike):
        return type(thing).__name__
    path = Path(os.fspath(thing).removeprefix("local-dir:"))
    if not path.exists():
        return os.fspath(thing)
    files = files_in(path) if path.is_dir() else [path]
    content = hashlib.sha256()
    for file in files:
        content.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            content.update(hashlib.file_digest(stream, "sha256").digest())
    return f"{path.resolve().name}@{content.hexdigest()[:16]}"
