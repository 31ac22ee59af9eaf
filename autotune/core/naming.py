"""Names that the command line and the Python interface must agree on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from autotune.core.errors import InputError

FULL_RUN = "full run"
FEWER_STEPS = "fewer steps"
PLAIN_STEPS = "plain steps"
FULL_TIER = "full"
"""The tier that every pipeline under policies has: the full run."""

TUNER_LOG = "log.txt"
"""The log in a run's folder; a run that resumes appends to it."""

CompileMode = Literal["none", "default", "reduce-overhead", "max-autotune"]
"""How the denoiser is compiled; ``none``, or a mode of ``torch.compile``."""

Backbone = Literal["alex", "vgg", "squeeze"]
"""Networks that LPIPS is measured in."""

_HUB_ID = re.compile(r"[\w-]+(?:\.[\w-]+)*/[\w-]+(?:\.[\w-]+)*")
_LONGEST_NAME = 60
_POLICY_OF_A_SEARCH = "policy"


# What inputs are, for people: one, and several of them.
_NOUNS = {"prompts": "prompt", "classes": "class", "seeds": "seed", "inputs": "input"}


def singular(noun: str) -> str:
    """One of what inputs are called.

    Example:
        >>> singular("classes")
        'class'
    """
    return _NOUNS[noun]


def is_hub_id(text: str) -> bool:
    """Whether ``text`` looks like ``user/repo`` rather than the path of a JSON file."""
    return _HUB_ID.fullmatch(text) is not None and not text.endswith(".json")


def default_study_name(model: str, *budgets: str) -> str:
    """The study's name when none is given: the same model and budgets give it again, so a repeated call resumes.

    Example:
        >>> default_study_name("emoji-unet", "40%")
        'emoji-unet-40pct'
    """
    return _file_name("-".join([model, *(budget.replace("%", "pct") for budget in budgets)]))


def budget_labels(budgets: Sequence[str], what: str = "budget") -> list[str]:
    """What tells the files of several budgets apart, or of ``what`` else they are.

    Raises:
        InputError: There are none, or two that are the same.

    Example:
        >>> budget_labels(["25%", "40%,1.5s", "2x"])
        ['25', '40-1.5s', '2x']
    """
    labels = [_file_name(budget.replace("%", "")) for budget in budgets]
    if not labels:
        raise InputError("no budget is given; give at least one, such as 40%")
    for number, label in enumerate(labels):
        if label in labels[:number]:
            raise InputError(f"the {what} {budgets[number]} is given twice; give each once")
    return labels


def policy_names(sources: Sequence[str]) -> list[str]:
    """A name for each of several policies, no two alike: its file's, or its folder's where a search exported it.

    Args:
        sources: Paths of policy files, or Hub ids.

    Example:
        >>> policy_names(["runs/emoji-unet-40pct/policy.json", "mine.json", "old/mine.json"])
        ['emoji-unet-40pct', 'mine', 'mine-2']
    """
    taken = {FULL_RUN}
    names = []
    for source in sources:
        name = wanted = _policy_name(source)
        number = 2
        while name in taken:
            name, number = f"{wanted}-{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def default_comparison_name(names: Iterable[str]) -> str:
    """The folder of a comparison when none is given, short for any number of policies.

    Example:
        >>> default_comparison_name(["mine", "theirs"])
        'compare-mine-theirs'
    """
    name = _file_name("-".join(["compare", *names]))
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _policy_name(source: str) -> str:
    path = Path(source)
    name = path.name if is_hub_id(source) and not path.is_file() else path.stem
    if name == _POLICY_OF_A_SEARCH:
        name = path.parent.name or name
    return " ".join(name.split())[:_LONGEST_NAME]


def _file_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
