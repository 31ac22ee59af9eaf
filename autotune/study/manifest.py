"""What a study holds so that other workers can join its search knowing only its storage and name."""

from __future__ import annotations

import base64
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import optuna

import autotune
from autotune.core.errors import InputError
from autotune.core.package_files import package_file, portable
from autotune.cost import Budget, Pricer, Profile
from autotune.evaluation.examples import read_prompts
from autotune.evaluation.inputs import in_memory, read_rows, to_json
from autotune.models.shipped import shipped_name
from autotune.options import SetupOptions, TuneOptions
from autotune.quality.panel import Panel, parse_judges
from search_spaces import engine_named, read_ranges

RUN, TRIALS = "run", "trials"

# Databases such as MySQL keep texts of up to 64 kB.
_CHUNK = 48_000
_MOST_CHUNKS = 40
_CHUNKS = "invitation_"


class _Unnamed(Exception):
    """Something exists in the tuner's memory only."""


class PreparedSearch(Protocol):
    """A search that others may join, such as :class:`autotune.workflows.setup.Setup`."""

    @property
    def pipe(self) -> Any:
        """The pipeline that is tuned."""

    @property
    def budget(self) -> Budget:
        """What policies may cost."""

    @property
    def deployed(self) -> Pricer:
        """What prices a pipeline call in deployment."""


@dataclass(frozen=True)
class Manifest:
    """All that another process needs to prepare the same search.

    Attributes:
        run: What the tuner calls its run; with several budgets the studies' names differ from it.
        version: Of this package.
        trials: Candidates that are asked for.
        budget: As the user wrote it.
        model: Shipped model, folder or hub id; None is the default of :func:`autotune.tune`.
        device: Kind of device.
        dtype: Name of torch's.
        arguments: The fields of :class:`autotune.options.SetupOptions`, JSON-ready; one that is not there has its
            default.
        alone: Why nobody can join, if so.
    """

    run: str
    version: str
    trials: int
    budget: str
    model: str | None
    device: str
    dtype: str
    arguments: Mapping[str, Any]
    alone: str | None = None

    @staticmethod
    def of(run: str, pipe: Any | None, setup: PreparedSearch, options: TuneOptions) -> Manifest:
        """What workers need to join a search that was prepared from ``options``."""
        alone, model, arguments = None, None, {}
        try:
            model = None if pipe is None else _model(pipe)
            as_inputs = options.inputs is not None
            given = {each.name: getattr(options, each.name) for each in fields(SetupOptions)}
            arguments = {name: _encoded(name, value, as_inputs=as_inputs) for name, value in given.items()}
            profile = setup.deployed.target
            arguments["target"] = None if profile is None else profile.model_dump(mode="json")
        except _Unnamed as reason:
            alone = str(reason)
        return Manifest(
            run=run,
            version=autotune.__version__,
            trials=options.trials,
            budget=str(setup.budget),
            model=model,
            device=setup.pipe.device.type,
            dtype=str(setup.pipe.dtype).removeprefix("torch."),
            arguments={} if alone else arguments,
            alone=alone,
        )

    def options(self) -> SetupOptions:
        """What the search was prepared from, besides pipeline and budget."""
        arguments = {name: _decoded(value) for name, value in self.arguments.items()}
        if arguments["target"] is not None:
            arguments["target"] = Profile.model_validate_json(json.dumps(arguments["target"]))
        return SetupOptions(**arguments)


def publish(study: optuna.Study, manifest: Manifest) -> None:
    """Keep a manifest in its study, in place of an earlier one."""
    text = _packed(manifest)
    if len(text) > _CHUNK * _MOST_CHUNKS:
        alone = f"inputs and profile take {len(text) / 1e6:.1f} MB, more than is kept in a study"
        text = _packed(Manifest(**asdict(manifest) | {"arguments": {}, "alone": alone}))
    kept = study.user_attrs
    wanted = {RUN: manifest.run, TRIALS: manifest.trials}
    wanted |= {f"{_CHUNKS}{n}": text[n * _CHUNK :][:_CHUNK] for n in range(-(-len(text) // _CHUNK))}
    wanted[f"{_CHUNKS}count"] = len(wanted) - 2
    for name, value in wanted.items():
        if kept.get(name) != value:
            study.set_user_attr(name, value)


def manifest_of(study: optuna.Study) -> Manifest:
    """The manifest that a study holds.

    Raises:
        InputError: it holds none.
    """
    kept = study.user_attrs
    try:
        text = "".join(kept[f"{_CHUNKS}{n}"] for n in range(kept[f"{_CHUNKS}count"]))
        return Manifest(**json.loads(zlib.decompress(base64.b64decode(text))))
    except (KeyError, TypeError, ValueError, zlib.error):
        raise InputError(
            f"the study {study.study_name!r} does not say how to join it; repeat the 'postdiff tune' that made it first"
        ) from None


def _packed(manifest: Manifest) -> str:
    return base64.b64encode(zlib.compress(json.dumps(asdict(manifest)).encode(), 9)).decode()


def _model(pipe: Any) -> str:
    name = str(getattr(pipe, "config", {}).get("_name_or_path") or "")
    if not name:
        raise _Unnamed("its pipeline was made in memory; save it to a folder and load it from there")
    folder = Path(name)
    if not folder.exists():
        return name
    return shipped_name(folder) or str(folder.resolve())


def _encoded(name: str, value: Any, *, as_inputs: bool) -> Any:
    if name == "inputs" or (name == "held_out" and as_inputs):
        rows = None if value is None else read_rows(value, name)
        if rows is not None and in_memory(rows):
            raise _Unnamed(f"its {name} hold pictures in memory; save them to files and name these")
        return None if rows is None else to_json(rows)
    if name in ("prompts", "held_out"):
        return read_prompts(value, name)
    if name == "space" and (engine := engine_named(value)) is not None:
        return engine
    if name == "space":
        ranges = read_ranges(value) if isinstance(value, str | os.PathLike) else value
        return None if ranges is None else {knob: list(ends) for knob, ends in ranges.items()}
    if name == "target":
        return None
    if name == "judges":
        return None if value is None else list(Panel(parse_judges(value)).texts)
    if value is None or isinstance(value, bool | int | float):
        return value
    if not isinstance(value, str | os.PathLike):
        raise _Unnamed(f"its {name} is an object in memory; give a name, a folder or a file")
    path = Path(os.fspath(value).removeprefix("local-dir:"))
    if name not in ("reference", "scorer", "network") or not path.exists():
        return os.fspath(value)
    return portable(path)


def _decoded(value: Any) -> Any:
    return (package_file(value) or value) if isinstance(value, str) else value
