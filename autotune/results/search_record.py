"""What a run's folder says of its search to those who show it: the denoiser as data, so that no model is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from autotune.core.records import Record, read_record, write_atomically
from autotune.cost.breakdown import Breakdown, break_down
from autotune.cost.work import WorkTable
from autotune.plan import Plan, compile_plan
from autotune.plan.structure import Structure
from autotune.policy import Policy

FILE = "search.json"


class SizedTable(Record):
    """Work of one call for one sample with latents of this size."""

    height: int
    width: int
    table: WorkTable


class FullRun(Record):
    """What everything is compared with. ``latency_ms`` is predicted, where the search knew of a target."""

    policy: Policy
    flops: int
    latency_ms: float | None


class SearchRecord(Record):
    """A search without its model.

    Attributes:
        study: the study's name.
        storage: its SQLAlchemy URL without the password; None is SQLite in the run's folder or, of several budgets,
            in the one above.
        model: its name, for people.
        source: what loads it: a shipped model's name, a folder or a Hugging Face Hub id; None where the pipeline
            does not know.
        height, width: of the pictures, in pixels.
        most_flops, most_ms: what the budget allows a picture, and a call in deployment; None is no such bound.
        structure: of the denoiser.
        latents: height and width at full size.
        skipped: how many of the first steps image-to-image leaves out, by number of steps; none where it is not there.
        noun: what the inputs are: prompts, classes, seeds or anything else.
        aligned: whether alignment with prompts was measured.
        call: what a call of the pipeline is given besides the inputs; pictures by their files.
        guidance_argument: what the call's guidance scale is called.
        takes_size: whether a call takes height and width.
        exact_share: of what the search spent on pictures, in FLOPs, that of exact runs; None until it is over.
        seconds: that each part of the run took, by what it is called; of an interrupted run, those of its last command.
        example: a held-out input by the names of its arguments; pictures by their files.
        calls: how often the scheduler has the denoiser called in each step, by number of steps; once where it is
            not there.
        tables: work of a call at the sizes that were asked for.
    """

    format: Literal["postdiff-search"] = "postdiff-search"
    version: Literal[1] = 1
    study: str
    storage: str | None
    model: str
    source: str | None
    height: int
    width: int
    guidance_scale: float | None
    budget: str
    most_flops: int | None
    most_ms: float | None
    full: FullRun
    structure: Structure
    latents: tuple[int, int]
    guided: bool
    itemsize: int
    calls: dict[int, tuple[int, ...]]
    tables: tuple[SizedTable, ...]
    skipped: dict[int, int] = {}
    noun: str = "prompts"
    aligned: bool = True
    call: dict[str, Any] = {}
    guidance_argument: str | None = "guidance_scale"
    takes_size: bool = True
    example: dict[str, Any] = {}
    exact_share: float | None = None
    seconds: dict[str, float] = {}

    def plan(self, policy: Policy) -> Plan:
        """The policy made explicit, as the search did.

        Raises:
            PolicyError: the policy does not fit the denoiser.
        """
        # Solvers that a search puts in place of the pipeline's own take one call a step.
        calls = self.calls.get(policy.steps) if policy.scheduler is None else None
        skipped = self.skipped.get(policy.steps, 0)
        start = skipped if calls is None else sum(calls[:skipped])
        return compile_plan(policy, self.structure, *self.latents, guided=self.guided, calls=calls, start=start)

    @property
    def full_table(self) -> WorkTable:
        """Work of one call of the full run for one sample."""
        return next(each.table for each in self.tables if (each.height, each.width) == self.latents)

    def breakdown(self, policy: Policy) -> Breakdown | None:
        """Where the policy's FLOPs go, for one picture; None where a size has not been counted yet."""
        plan, full = self.plan(policy), self.plan(self.full.policy)
        known = {(each.height, each.width): each.table for each in self.tables}
        if not {(step.height, step.width) for step in (*plan.steps, *full.steps)} <= known.keys():
            return None
        return break_down(plan, full, lambda *size: known[size], itemsize=self.itemsize)

    def save(self, folder: Path) -> None:
        """Write it into a run's folder, whole or not at all."""
        write_atomically(folder / FILE, self.model_dump_json() + "\n")


def read_search_record(folder: Path) -> SearchRecord | None:
    """The search record in a run's folder; None where an older release has left none.

    Raises:
        InputError: the file is damaged.
    """
    return read_record(SearchRecord, folder / FILE, "repeat the command that made the run")
