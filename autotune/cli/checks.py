"""What can be said of an option's value without torch. Each check returns the value ready to use, or refuses it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.cli.models import ModelSource
from autotune.core.errors import InputError, PolicyError
from autotune.core.naming import policy_names

if TYPE_CHECKING:
    from autotune.evaluation.inputs import Row
    from autotune.policy import Policy

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>s|sec|m|min|h)?", re.IGNORECASE)
_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600}
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


def duration(text: str) -> float:
    """Seconds meant by ``300``, ``5m`` or ``1.5h``.

    Raises:
        InputError: it is no time, or none at all.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match["number"]) * _SECONDS[(match["unit"] or "s").lower()] if match else 0.0
    if seconds <= 0:
        raise InputError(f"--timeout {text}: no length of time; write seconds such as 300, or 5m, or 1h")
    return seconds


def device(text: str) -> str:
    """``text`` if it names a device.

    Raises:
        InputError: it does not.
    """
    if not _DEVICE.fullmatch(text):
        raise InputError(f"--device {text}: no device; use auto, cpu, cuda, cuda:1 or mps")
    return text


def devices(text: str) -> tuple[str, ...]:
    """Devices of one kind, such as ``("cuda:0", "cuda:1")``; of ``all`` none, for torch knows them.

    Raises:
        InputError: one of them is no device, or they are of several kinds.
    """
    if text == "all":
        return ()
    named = tuple(part.strip() for part in text.split(","))
    for each in named:
        if not _DEVICE.fullmatch(each) or each == "auto":
            raise InputError(f"--devices {text}: {each!r} is no device; write cuda:0,cuda:1 or all, or cpu,cpu")
    if len({each.partition(":")[0] for each in named}) > 1:
        raise InputError(f"--devices {text}: scores of different kinds of device do not mix; give devices of one kind")
    return named


def side(name: str, pixels: int | None) -> int | None:
    """Height or width in pixels, if any.

    Raises:
        InputError: no pipeline makes pictures of that size.
    """
    if pixels is not None and (pixels < 8 or pixels % 8):
        lower = max(8, pixels // 8 * 8)
        raise InputError(f"--{name} {pixels}: pictures come in multiples of 8 pixels; use {lower} or {lower + 8}")
    return pixels


def batches(text: str) -> list[int]:
    """Numbers of pictures in a call: ``1,4``.

    Raises:
        InputError: one of them is no number of pictures.
    """
    found = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) for part in found):
        raise InputError(f"--batch {text}: write how many pictures a call makes, such as 4, or several such as 1,4")
    return [int(part) for part in found]


def scales(text: str) -> list[float]:
    """Latent sizes as shares of a side: ``0.5,0.75``.

    Raises:
        InputError: one of them is no such share.
    """
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = [0.0]
    if not all(0 < scale <= 1 for scale in found):
        raise InputError(f"--scales {text}: write shares of a side above 0 and up to 1, such as 0.5,0.75,1")
    return found


def policies(sources: list[str], model: ModelSource) -> dict[str, Policy]:
    """The policies in files or on the hub, by a name for each; of a file of several, all of them.

    Raises:
        PolicyError: one of them cannot be read, or was made for another model.
    """
    from autotune.cli.tiers import load_any
    from autotune.policy import Policy

    loaded: dict[str, Policy] = {}
    for name, source in zip(policy_names(sources), sources, strict=True):
        found = load_any(source)
        one = isinstance(found, Policy)
        # A tier goes by its own name where that is nobody else's.
        for tier, policy in {name: found}.items() if isinstance(found, Policy) else found.tiers.items():
            try:
                model.check_policy(policy.model)
            except PolicyError as error:
                of = "" if one else f", tier {tier}"
                raise PolicyError(f"--policy {source}{of}: {error}") from None
            loaded[tier if tier not in loaded else f"{name} {tier}"] = policy
    return loaded


def either(prompts: object | None, inputs: object | None) -> None:
    """Refuse inputs in both of their forms.

    Raises:
        InputError: there are prompts and inputs.
    """
    if prompts is not None and inputs is not None:
        raise InputError("--prompts and --inputs say the same thing twice; write the prompts into the inputs")


def rows_to_generate(prompts: list[str], given: Path | None, model: ModelSource) -> tuple[Row, ...]:
    """What ``postdiff generate`` shows, a picture each.

    Raises:
        InputError: there is nothing to show, or it is said twice.
    """
    from autotune.evaluation.inputs import read_rows, rows_of_prompts, seed_rows

    if prompts and given is not None:
        raise InputError("--prompt and --inputs say the same thing twice; write the prompts into the inputs")
    if not all(text.strip() for text in prompts):
        raise InputError("--prompt: is empty; say what to show")
    if given is not None:
        return read_rows(given)
    if not prompts and model.depicts_prompts:
        raise InputError("--prompt: is missing; say what to show, or give --inputs FILE")
    return rows_of_prompts(prompts) or seed_rows(1)


def reference(path: Path | None) -> Path | None:
    """A folder of reference pictures or a file of their statistics, if any.

    Raises:
        InputError: it is neither, or the folder holds no picture.
    """
    if path is None or (path.is_file() and path.suffix == ".safetensors"):
        return path
    if not path.is_dir():
        raise InputError(f"--reference {path}: no such folder; give one that holds pictures")
    if not any(file.suffix.lower() in _PICTURES for file in path.rglob("*")):
        raise InputError(f"--reference {path}: holds no picture; give a folder of {', '.join(sorted(_PICTURES))} files")
    return path


def storage(url: str | None) -> str | None:
    """An SQLAlchemy URL, if any.

    Raises:
        InputError: it is no URL of a database.
    """
    if url is None:
        return None
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    try:
        dialect = make_url(url).get_dialect()
    except SQLAlchemyError:
        raise InputError(
            f"--storage {url}: no URL of a known database; write sqlite:///study.db or"
            " postgresql+psycopg://user@host/name"
        ) from None
    try:
        dialect.import_dbapi()
    except ImportError as error:
        hint = "pip install 'postdiff[postgresql]'" if dialect.driver == "psycopg" else f"pip install {error.name}"
        raise InputError(f"--storage: the driver {dialect.driver} is not installed; {hint}") from None
    return url


def storage_to_share(url: str | None) -> None:
    """Refuse a database that no other process sees.

    Raises:
        InputError: it is in this process's memory.
    """
    if url is None:
        return
    from sqlalchemy import make_url

    database = make_url(url).database
    if url.startswith("sqlite") and (database or ":memory:").startswith(":memory:"):
        raise InputError(
            f"--devices: workers cannot reach {url}, which is in memory; name a file, or leave --storage out"
        )


def workers(text: str) -> int | None:
    """A number of processes, or None for ``auto``.

    Raises:
        InputError: it is neither.
    """
    if text == "auto":
        return None
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise InputError(f"--workers {text}: give a number of processes from 1 on, or auto")
    return int(text)


def folder_to_write(path: Path) -> Path:
    """A folder that exists or can be made.

    Raises:
        InputError: a file stands in its place, or nothing may be written there.
    """
    try:
        place = next(place for place in (path, *path.parents) if place.exists())
    except OSError as error:
        raise InputError(f"--out {path}: cannot be a folder ({error.strerror}); give another") from None
    if not place.is_dir():
        raise InputError(f"--out {path}: {place} is a file; give a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"--out {path}: nothing may be written to {place.resolve()}; give another folder")
    return path


def file_to_write(path: Path) -> Path:
    """A file that exists or can be made.

    Raises:
        InputError: it is a folder, or a file stands where one of its folders must.
    """
    if path.is_dir():
        raise InputError(f"--out {path}: is a folder; give a file")
    folder_to_write(path.parent)
    return path


def picture_files(out: Path, prompts: list[str]) -> list[Path]:
    """One file to write per prompt, or what else is shown: ``out`` itself for one, files in it otherwise.

    Raises:
        InputError: ``out`` names one file for several prompts, or a file that stands where a folder must.
    """
    if out.suffix.lower() in _PICTURES and not out.is_dir():
        if len(prompts) > 1:
            raise InputError(f"--out {out}: one file cannot hold {len(prompts)} pictures; give a folder")
        folder_to_write(out.parent)
        return [out]
    folder_to_write(out)
    names = (re.sub(r"[^\w]+", "-", prompt).strip("-")[:60] for prompt in prompts)
    return [out / f"{index:02d}-{name or 'picture'}.png" for index, name in enumerate(names)]
