"""The study files that come with the package, found by their names: ``--study sdxl-1024``.

In the repository they are ``studies/*.toml``; the wheel holds them as ``autotune/studies``.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

import autotune
from autotune.core.errors import InputError, did_you_mean

_PACKAGE = Path(autotune.__file__).parent
_INSTALLED, _CHECKOUT = _PACKAGE / "studies", _PACKAGE.parent / "studies"
_SUFFIX = ".toml"
_NEAREST = 3


@dataclass(frozen=True)
class StudyFile:
    """A study file of the package.

    Attributes:
        name: What ``--study`` takes.
        model: What ``--model`` would be.
    """

    name: str
    model: str


def study_files() -> tuple[StudyFile, ...]:
    """Those of the package, by name."""
    return tuple(StudyFile(name, tomllib.loads(path.read_text("utf-8"))["model"]) for name, path in _paths().items())


def find_study(study: Path) -> Path:
    """The file that ``study`` means: a path, or the name of a file of the package. What exists as a file is a file.

    Raises:
        InputError: there is no such study.
    """
    if study.is_file():
        return study
    named = _paths()
    if str(study) in named:
        return named[str(study)]
    if len(study.parts) == 1 and study.suffix != _SUFFIX and not study.exists():
        begun = [repr(name) for name in named if name.startswith(str(study))]
        hint = f"; did you mean {' or '.join(begun)}?" if begun else did_you_mean(str(study), named, _NEAREST)
        raise InputError(f"--study {study}: neither a file nor a study that 'postdiff models' lists{hint}")
    hint = f", or --study {study.stem}, which comes with the package" if study.stem in named else ""
    raise InputError(f"--study {study}: is no file; give a TOML file{hint}")


def _paths() -> dict[str, Path]:
    folder = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
    return {path.stem: path for path in sorted(folder.glob(f"*{_SUFFIX}"))}
