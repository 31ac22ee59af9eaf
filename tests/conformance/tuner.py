"""The tuner on a family's tiny pipeline, as users run it, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache, cached_property, partial
from io import StringIO
from pathlib import Path

import optuna
import pytest
from diffusers import DiffusionPipeline
from optuna.trial import FrozenTrial, TrialState
from safetensors.torch import load_file
from torch import Tensor

import autotune
from autotune.cli import run
from autotune.evaluation import timing
from autotune.policy import Policy
from autotune.study.trials import FAILURE, policy_of, sqlite_url
from search_spaces import space_for
from search_spaces.denoiser import DenoiserSpace
from tests.conformance.levers import all_at_once
from tests.support.builders import FAMILIES
from tests.support.folders import SCORER, Brought, brought

# What is not saved with a pipeline: IP-Adapters, and sizes that a tiny model makes in a moment.
FROM_PYTHON = [name for name, family in FAMILIES.items() if family.ip_adapters or name.startswith("kandinsky5")]
# Videos are refused, and what is no class of diffusers cannot be loaded from a folder.
FROM_FOLDERS = [name for name in FAMILIES if name not in ("wan", "generic", *FROM_PYTHON)]


EXAMPLES = 8
"""Pictures of a candidate, and of each run in the last round."""

STEPS = 4
"""Of the full run, unless more is asked for."""


@dataclass(frozen=True)
class Said:
    """What a command returned and printed."""

    code: int
    output: str
    errors: str


@dataclass(frozen=True)
class Run:
    """A run directory."""

    folder: Path

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials of all studies."""
        url = sqlite_url(self.folder / "study.db")
        names = optuna.get_all_study_names(url)
        return [trial for name in names for trial in optuna.load_study(study_name=name, storage=url).get_trials()]

    @property
    def complete(self) -> list[FrozenTrial]:
        return [trial for trial in self.trials if trial.state is TrialState.COMPLETE]

    @property
    def failures(self) -> list[str]:
        """Why candidates failed; one that was stopped is queued again, and no failure."""
        return [trial.user_attrs[FAILURE] for trial in self.trials if FAILURE in trial.user_attrs]

    @property
    def policies(self) -> list[Policy]:
        """What was evaluated."""
        return [policy_of(trial) for trial in self.complete]

    @cached_property
    def finalists(self) -> list[Policy]:
        """What the last round ran: the full run, fewer steps, the best candidates."""
        document = json.loads((self.folder / "finalists.json").read_text())
        return [autotune.load_policy(each["policy"]) for each in document["contenders"]]

    @property
    def exported(self) -> Policy:
        return autotune.load_policy(self.folder / "policy.json")

    def judged(self, policy: Policy) -> Tensor:
        """The pictures (n, 3, H, W) uint8 of the last round."""
        (file,) = (self.folder / "outcomes").glob(f"*/held-out/{policy.key}.safetensors")
        return load_file(file)["preview"]


@contextmanager
def in_brief() -> Iterator[None]:
    """Without what shows nothing more on a tiny model: pictures are timed once and not in five rounds of eight, and
    a reference of the full run's own pictures has one seed more and not four."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autotune.workflows.last_round.TIMED_IMAGES", 1)
        patch.setattr("autotune.workflows.last_round.time_policies", partial(timing.time_policies, rounds=1))
        patch.setattr("autotune.evaluation.references.OTHER_SEEDS", 1)
        yield


def command_line(*arguments: str) -> Said:
    """Run a command in this process."""
    with redirect_stdout(StringIO()) as output, redirect_stderr(StringIO()) as errors:
        code = run(arguments)
    return Said(code, output.getvalue(), errors.getvalue())


def search(brought: Brought, out: Path, *options: str, steps: int = STEPS) -> list[str]:
    """The command of a search with few pictures."""
    return ["tune", *judged(brought, steps), "--held-out-images", str(EXAMPLES), "--out", str(out), *options]


def judged(brought: Brought, steps: int) -> list[str]:
    """What a search and a comparison are told of model, rows and pictures."""
    # Pictures of random weights match no prompt better than others.
    weights = ("--weight-clip", "0") if "--prompts" in brought.options or "--inputs" in brought.options else ()
    return [
        *("--model", str(brought.model), *brought.options, *size_of(brought), "--device", "cpu"),
        *("--steps", str(steps), "--images", str(EXAMPLES), "--scorer", str(SCORER), *weights),
    ]


def size_of(brought: Brought) -> tuple[str, ...]:
    """The tiny size, which is not every model's native one."""
    height, width = map(str, brought.size)
    return "--height", height, "--width", width


@cache
def space_of(name: str, steps: int = STEPS) -> DenoiserSpace:
    """The space that a search of the family has."""
    family, (height, width) = FAMILIES[name], brought(name).size
    # As saved, for schedulers that others are made of differ in what their configs spell out.
    pipe = DiffusionPipeline.from_pretrained(brought(name).model)
    space = space_for(pipe, height=height, width=width, steps=steps, guided=family.guided)
    assert isinstance(space, DenoiserSpace)
    return space


def three_candidates(name: str, file: Path) -> tuple[str, ...]:
    """Options for a search of the three candidates in :func:`few`."""
    file.write_text(
        "[knobs]\n" + "".join(f"{knob} = [{low}, {high}]\n" for knob, (low, high) in few(space_of(name)).items())
    )
    return "--trials", "3", "--space", str(file)


def few(space: DenoiserSpace) -> dict[str, tuple[int, int]]:
    """Ranges of knobs that leave fewer steps, every lever at once, and these by another solver.

    Where there is no other solver, another hand-off makes the third. One knob alone may have two values, for recipes
    are brought into the ranges, and a search runs all that differ, however few candidates it is asked for.
    """
    ranges = {knob: (value, value) for knob, value in all_at_once(space).items()}
    # What begins with a picture leaves out the first step: only behind a later one there is a hand-off.
    others = {"solver": (0, 1)} if len(space.solvers) > 1 else {"handoff": (0, 1), "switch": (8, 8)}
    offered = {knob.name for knob in space.knobs}
    return ranges | {knob: values for knob, values in others.items() if knob in offered}
