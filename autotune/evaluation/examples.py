"""Which inputs a run makes pictures of, and with which seeds."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from autotune.core.errors import InputError
from autotune.evaluation.accepted_inputs import accepted
from autotune.evaluation.inputs import PROMPT, Inputs, Row, read_rows, rows_of_prompts, seed_rows
from autotune.options.given import AnyInputs, Prompts
from autotune.quality import load_prompts

SEEDS_APART = 10**9
"""Seeds for tuning, the last round, references and comparisons begin this far apart: none is used for two of them."""

_MIN_IMAGES = 8
# Held-out pictures. More of the same input hardly narrow an interval that is taken over inputs.
_HELD_OUT, _OF_EACH = 480, 3


@dataclass(frozen=True)
class Examples:
    """Inputs and one seed each."""

    rows: tuple[Row, ...]
    seeds: tuple[int, ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        """Of inputs that all have one."""
        return tuple(row.arguments[PROMPT] for row in self.rows)

    def head(self, count: int) -> Examples:
        """The first ``count``."""
        return Examples(self.rows[:count], self.seeds[:count])


def check_examples(images: int, seed: int, name: str) -> None:
    """Refuse numbers of pictures, called ``name`` by the caller, and seeds that no run can use.

    Raises:
        InputError: there are too few pictures, or the seed may be one of another kind of pictures.
    """
    if images < _MIN_IMAGES:
        raise InputError(f"{name} is {images}; at least {_MIN_IMAGES} pictures are needed to tell policies apart")
    if not 0 <= seed < SEEDS_APART:
        raise InputError(f"seed is {seed}; give a number from 0 to {SEEDS_APART - 1}")


def choose(rows: Sequence[Row], count: int, seed: int) -> Examples:
    """``count`` inputs with seeds from ``seed`` on: a random choice, or all equally often where there are fewer.

    Equally often, so that intervals can be taken over inputs; that may make it more than ``count``.
    A choice and not the first ones, because lists are often sorted by subject or style. Without rows, seeds alone.
    """
    if not rows:
        chosen = list(seed_rows(count))
    elif len(rows) >= count:
        chosen = random.Random(seed).sample(list(rows), count)
    else:
        chosen = list(rows) * math.ceil(count / len(rows))
    return Examples(tuple(chosen), tuple(range(seed, seed + len(chosen))))


def usual_held_out(rows: Sequence[Row]) -> int:
    """Pictures of the last round, unless somebody says how many."""
    return max(_MIN_IMAGES, min(_HELD_OUT, _OF_EACH * len(rows))) if rows else _HELD_OUT


def given_rows(prompts: Prompts | None, inputs: AnyInputs | None) -> tuple[Row, ...] | None:
    """The inputs, in their long or their short form, if any.

    Raises:
        InputError: both forms are given, or one of them cannot be used.
    """
    if inputs is None:
        return _rows_of(prompts, "prompts")
    if prompts is not None:
        raise InputError("prompts and inputs say the same thing twice; write the prompts into the inputs")
    return read_rows(inputs)


def held_out_rows(held_out: Prompts | AnyInputs | None, *, as_inputs: bool) -> tuple[Row, ...] | None:
    """Inputs for the last round, in the form of the others.

    Raises:
        InputError: they cannot be used.
    """
    if as_inputs and held_out is not None:
        return read_rows(cast(AnyInputs, held_out), "held_out")
    return _rows_of(cast(Prompts | None, held_out), "held_out")


def _rows_of(prompts: Prompts | None, name: str) -> tuple[Row, ...] | None:
    read = read_prompts(prompts, name)
    return None if read is None else rows_of_prompts(read)


def sides_of(pipe: Any, rows: Sequence[Row] | None, held_out: Sequence[Row] | None) -> tuple[Inputs, Inputs]:
    """Inputs to tune on and inputs for the last round, as the pipeline takes them.

    Args:
        pipe: The pipeline.
        rows: As :func:`autotune.evaluation.accepted_inputs.accepted` takes them.
        held_out: For the last round; None sets some of ``rows`` aside.

    Raises:
        InputError: the pipeline does not take them, both sides are not alike, or they are too few for two sides.
    """
    taken = accepted(pipe, rows)
    if held_out:
        aside = accepted(pipe, held_out)
        if (aside.call, aside.keys) != (taken.call, taken.keys):
            raise InputError("held_out and the other inputs are not alike; give both the same keys and settings")
        return taken, aside
    tuning, aside = taken.split()
    if taken.rows and not (tuning.rows and aside.rows):
        raise InputError(
            f"{len(taken.rows)} {taken.noun} are too few to set some aside; give more, or held-out {taken.noun} of"
            " their own"
        )
    return tuning, aside


def read_prompts(prompts: Prompts | None, name: str) -> list[str] | None:
    """The prompts in a list or a file, if any; ``name`` is what the caller calls them.

    Raises:
        InputError: there is no prompt, or the file cannot be read.
    """
    if prompts is None:
        return None
    if isinstance(prompts, str | os.PathLike):
        return load_prompts(prompts)
    found = list(prompts)
    if not found:
        raise InputError(f"{name} is empty; give at least one prompt")
    return found
