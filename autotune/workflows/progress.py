"""What a person sees while a search runs: a live bar in a terminal, plain lines elsewhere, or nothing."""

from __future__ import annotations

import logging
import math
import time
from types import TracebackType
from typing import Self

import rich.progress
from rich.console import Console

from autotune.search.trial_runner import Report

_LOG = logging.getLogger(__name__)

# Without a terminal, a line at least as often while pictures are made.
_LINE_SECONDS = 60
_BAR_WIDTH = 16
# What a row takes besides its note and its bar: the description, how many of how many, and the gaps.
_BESIDES = 24


class Progress:
    """Live progress of one run. Use as a context manager.

    Args:
        quiet: Show nothing.
        console: Where to write; standard error by default, so that results on standard output stay clean.
    """

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._bar: rich.progress.Progress | None = None
        self._stage: rich.progress.TaskID | None = None
        self._trials: rich.progress.TaskID | None = None
        self._total = 0
        self._done = 0
        self._done_before = 0
        self._started = 0.0
        self._deadline = 0.0
        self._best = ""
        self._best_loss: float | None = None
        self._waiting_for = 0
        self._doing, self._pictures = "", 0
        self._said_at = time.monotonic()

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(_BAR_WIDTH),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[note]}"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def stage(self, text: str, pictures: int = 0) -> None:
        """Something begins that makes ``pictures`` pictures (0: takes no time worth a bar)."""
        _LOG.info("%s", text)
        self._doing, self._pictures = text, pictures
        if self._bar is None:
            self._line(text)
        elif self._stage is None:
            self._stage = self._bar.add_task(text, total=pictures or None, note="")
        else:
            self._bar.reset(self._stage, description=text, total=pictures or None)

    def profiling(self, what: str, done: int, total: int) -> None:
        """The machine is being measured."""
        if done == 0:
            self.stage(f"profiling this machine, {what}", total)
        self.pictures(done)

    def pictures(self, made: int) -> None:
        """So many pictures of the current stage or candidate are made."""
        if self._bar is not None and self._stage is not None:
            self._bar.update(self._stage, completed=made)
        elif self._pictures and time.monotonic() - self._said_at >= _LINE_SECONDS:
            self._line(f"{self._doing}: {made} of {self._pictures} pictures")

    def search(self, total: int, done: int, timeout: float) -> None:
        """The search begins: ``total`` candidates, ``done`` of them by earlier runs, ``timeout`` seconds at most."""
        self._total, self._done, self._done_before = total, done, done
        self._started = time.monotonic()
        self._deadline = self._started + timeout
        self._best, self._best_loss = "", None
        if self._bar is not None:
            if self._trials is not None:
                self._bar.remove_task(self._trials)
            self._trials = self._bar.add_task("candidates", total=total, completed=done, note=self._note())
        elif done:
            self._line(f"resuming: {done} of {total} candidates are already done")

    def best(self, loss: float, relative_cost: float, policy_id: str) -> None:
        """A candidate (of this run or an earlier one) may be the best so far."""
        if self._best_loss is None or loss < self._best_loss:
            self._best_loss = loss
            self._best = f"best {loss:.3f} at {relative_cost:.1%}, {policy_id}"

    def candidate(self, number: int, pictures: int) -> None:
        """Trial ``number`` begins."""
        self._doing, self._pictures = f"trial {number}", pictures
        if self._bar is not None:
            self.stage(self._doing, pictures)

    def others(self, trials: int) -> None:
        """Nothing is left to begin; other workers are at work on so many trials, or died and are not missed yet."""
        if self._waiting_for != trials:
            self._waiting_for = trials
            self.stage(f"waiting for {trials} trial{'s' if trials > 1 else ''} of other workers")

    def report(self, report: Report) -> None:
        """A trial ended."""
        if report.loss is not None and report.proposal is not None and not report.pruned and report.feasible:
            self.best(report.loss, report.proposal.cost.relative, report.proposal.policy.id)
        if report.duplicate_of is None:
            self._done += 1
        said = _said(report)
        _LOG.info("trial %d: %s", report.trial, said)
        if self._bar is not None and self._trials is not None:
            self._bar.update(self._trials, completed=self._done, note=self._note())
        elif report.duplicate_of is None:
            self._line(f"{self._done}/{self._total}  {said}  {self._note()}")

    def _note(self) -> str:
        elapsed = time.monotonic() - self._started
        left = self._deadline - time.monotonic()
        if self._done > self._done_before:
            left = min(left, elapsed / (self._done - self._done_before) * (self._total - self._done))
        remaining = f"{_clock(left)} left" if math.isfinite(left) else ""
        if self._bar is not None:
            # What does not fit is lost, so that the time comes first and the policy last.
            room = max(self._console.width - _BESIDES - _BAR_WIDTH, 0)
            return "  ".join(filter(None, (remaining or f"{_clock(elapsed)} elapsed", self._best)))[:room]
        times = f"{_clock(elapsed)} elapsed" + (f", {remaining}" if remaining else "")
        return f"{self._best}  {times}" if self._best else times

    def _line(self, text: str) -> None:
        self._said_at = time.monotonic()
        if not self._quiet:
            self._console.print(text, markup=False, soft_wrap=True)


def _said(report: Report) -> str:
    """How a trial ended."""
    result = f"failed: {report.reason}" if report.loss is None else f"loss {report.loss:.3f}"
    if report.duplicate_of is not None:
        result = f"the same as trial {report.duplicate_of}"
    elif report.pruned:
        result = f"pruned after {report.pictures} pictures"
    if not report.feasible and report.duplicate_of is None:
        result += ", error above the ceiling"
    if report.proposal is None:
        return result
    return f"{result}  {report.proposal.cost.relative:.1%}  {report.proposal.policy.id}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
