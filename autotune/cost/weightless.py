"""Pipelines made of their configs alone: enough to price a model, or to time it, without its weights."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autotune.core.errors import InputError, reason_of
from autotune.core.naming import is_hub_id

_INDEX = "model_index.json"
# Configs, vocabularies, sentencepiece models and chat templates.
_SMALL_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
# Lists of weight files are long, and of no use without them.
_LEFT_OUT = ["*.index.json", "safety_checker/*"]
# Larger than any weight that is drawn on purpose.
_LARGEST_WEIGHT = 1e3
_STD = 0.02


def pipeline_from_configs(
    source: str | os.PathLike[str], *, device: str | torch.device = "meta", dtype: torch.dtype = torch.float32
) -> Any:
    """A stock diffusers pipeline without its trained weights: what prices and times need of a model.

    It has the fingerprints, the sizes and the price of the pipeline with weights. Optional components that the
    model leaves empty stay empty; a safety checker is always left out, for it would judge noise. No code that
    comes with a model is run.

    Args:
        source: a folder in diffusers format, whose weight files may be missing, or a Hugging Face Hub id, of
            which only configs and tokenizers are downloaded. What exists as a folder is a folder.
        device: ``meta`` takes no memory and cannot run. Elsewhere weights are random and finite, made in place and
            in ``dtype``: building takes no more memory than the model.
        dtype: of all weights.

    Raises:
        InputError: one sentence: it is no such folder or id, its pipeline or a component is of a class that
            neither diffusers nor transformers has, or a config cannot be read.

    Example:
        >>> pipe = pipeline_from_configs(autotune.models.shipped.demo_assets("emoji-unet").folder)
        >>> autotune.cost.Pricer(pipe).full_cost().flops
        15458549760
    """
    folder = _folder_of(source)
    name = str(source)
    index = _read_index(folder, name)
    pipeline = _pipeline_class(index, name)
    arguments = {
        argument: _component(name, folder, argument, value, torch.device(device), dtype)
        if _is_component(value)
        else value
        for argument, value in _named(pipeline, index, name).items()
    }
    pipe = pipeline(**arguments)
    # As from_pretrained does; settings that are shipped beside the configs are found by it.
    pipe.register_to_config(_name_or_path=name)
    return pipe


def _folder_of(source: str | os.PathLike[str]) -> Path:
    folder = Path(source)
    if (folder / _INDEX).is_file():
        return folder
    if folder.exists():
        raise InputError(f"{source}: holds no {_INDEX}; give the folder of a pipeline in diffusers format")
    if not isinstance(source, str) or not is_hub_id(source):
        raise InputError(f"{source}: neither a folder nor a Hugging Face Hub id (user/repo)")
    return _download(source)


def _download(repository: str) -> Path:
    # Here, because folders need no hub.
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, allow_patterns=_SMALL_FILES, ignore_patterns=_LEFT_OUT))
    except Exception as error:  # Everything from bad ids to lost connections, of several libraries.
        raise InputError(
            f"{repository}: neither a folder nor a model that the Hugging Face Hub gives out ({reason_of(error)});"
            " check the name and the connection"
        ) from None
    if not (folder / _INDEX).is_file():
        raise InputError(f"{repository}: holds no {_INDEX}; name a repository in diffusers format")
    return folder


def _read_index(folder: Path, name: str) -> Mapping[str, Any]:
    from diffusers import DiffusionPipeline

    with _readable(name, _INDEX):
        index: Mapping[str, Any] = DiffusionPipeline.load_config(folder)
    return index


def _pipeline_class(index: Mapping[str, Any], name: str) -> Any:
    import diffusers

    wanted = index.get("_class_name")
    found = getattr(diffusers, wanted, None) if isinstance(wanted, str) else None
    if not (inspect.isclass(found) and issubclass(found, diffusers.DiffusionPipeline)):
        raise InputError(
            f"{name}: its pipeline class {wanted!r} is not one of diffusers {diffusers.__version__}; a newer diffusers"
            " may have it, and code that comes with a model is never run"
        )
    return found


def _named(pipeline: Any, index: Mapping[str, Any], name: str) -> dict[str, Any]:
    """What the index says of the pipeline's arguments: components as (library, class), settings as they are."""
    arguments: dict[str, Any] = {}
    for parameter in list(inspect.signature(pipeline.__init__).parameters.values())[1:]:
        if parameter.name == "requires_safety_checker":
            arguments[parameter.name] = False
        elif parameter.name == "safety_checker" or _is_null(index.get(parameter.name, ())):
            arguments[parameter.name] = None
        elif parameter.name in index:
            arguments[parameter.name] = index[parameter.name]
        elif parameter.name in pipeline._optional_components:
            arguments[parameter.name] = None
        elif parameter.default is parameter.empty:
            raise InputError(
                f"{name}: its {_INDEX} names no {parameter.name}, which {pipeline.__name__} needs; download it again"
            )
    return arguments


def _is_component(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(part, str) for part in value)


def _is_null(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and value[0] is None


def _component(
    name: str, folder: Path, component: str, value: tuple[str, str], device: torch.device, dtype: torch.dtype
) -> Any:
    import diffusers
    import transformers

    found = _component_class(name, component, *value)
    place = folder / component
    # Without a folder, libraries take the path for a hub id; without a config, transformers takes its defaults.
    if not (place / "config.json" if issubclass(found, nn.Module) else place).exists():
        raise InputError(f"{name}: holds no config of its {component}; download the model again")
    if not issubclass(found, nn.Module):
        with _readable(name, component):
            return found.from_pretrained(place)
    if not issubclass(found, diffusers.ModelMixin | transformers.PreTrainedModel):
        raise InputError(f"{name}: its {component}, a {value[1]}, cannot be made of its config alone")
    with _readable(name, component):
        is_diffusers = issubclass(found, diffusers.ModelMixin)
        config = found.load_config(place) if is_diffusers else found.config_class.from_pretrained(place)
    with _buildable(name, component), device, _default_dtype(dtype):
        module: nn.Module = found.from_config(config) if is_diffusers else found._from_config(config, dtype=dtype)
    _settle(module, dtype)
    return module.eval().requires_grad_(False)


def _component_class(name: str, component: str, library: str, wanted: str) -> Any:
    """The class by its name in the index: of diffusers, of one of its pipelines' modules, or of transformers."""
    import diffusers.pipelines

    found = None
    if library in ("diffusers", "transformers"):
        found = getattr(importlib.import_module(library), wanted, None)
    elif hasattr(diffusers.pipelines, library):
        found = getattr(getattr(diffusers.pipelines, library), wanted, None)
    else:
        raise InputError(
            f"{name}: its {component} is a {wanted} of {library}, which is neither diffusers nor transformers; code"
            " that comes with a model is never run"
        )
    if not (inspect.isclass(found) and hasattr(found, "from_pretrained")):
        raise InputError(
            f"{name}: its {component} is a {wanted}, which the installed {library} does not have; a newer one may"
        )
    return found


def _settle(module: nn.Module, dtype: torch.dtype) -> None:
    """Every parameter in ``dtype``, and drawn where a fresh model leaves what the memory held, for weights to replace.

    Not ``module.to``: tables of angles that a model makes in higher precision stay as it makes them.
    """
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
        # Not a number is not below anything either.
        if not parameter.is_meta and parameter.numel() and not bool(parameter.abs().max() < _LARGEST_WEIGHT):
            nn.init.normal_(parameter, std=_STD)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def _readable(name: str, part: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Whatever the libraries raise for a file that is missing, cut off or not JSON.
        raise InputError(f"{name}: its {part} cannot be read ({reason_of(error)}); download the model again") from error


@contextmanager
def _buildable(name: str, component: str) -> Iterator[None]:
    """Of a config that is JSON but makes no sense; running out of memory is a RuntimeError, and stays one."""
    try:
        yield
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise InputError(
            f"{name}: its {component} cannot be made of its config ({reason_of(error)}); download the model again"
        ) from error
