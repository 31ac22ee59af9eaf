"""What a person sees of a run: the phase and those ahead, with a live bar in a terminal, plain lines, or nothing."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import rich.progress
from rich.console import Console, RenderableType
from rich.text import Text

from autotune.search.loop import OtherReport
from autotune.search.trial_runner import Report
from autotune.workflows.laps import Laps

_LOG = logging.getLogger(__name__)

# Without a terminal, a line at least as often while pictures are made.
_LINE_SECONDS = 60
_BAR_WIDTH = 16
_SEARCH = "search"
# What a row takes besides its note and its bar: the description, how many of how many, and the gaps.
_BESIDES = 24


@dataclass(frozen=True)
class _Phase:
    """A part of a run; ``seconds`` are expected of it, ``kept`` is what stays if somebody interrupts it."""

    name: str
    kept: str
    began: float
    seconds: float | None = None

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.began


@dataclass(frozen=True)
class _Ahead:
    """What follows a phase: in words, in pictures that take what candidates' take, and in searches like this one."""

    words: str = ""
    pictures: float = 0.0
    searches: int = 0


class _Bars(rich.progress.Progress):
    """Bars below a line that is made anew whenever they are."""

    def __init__(self, *columns: rich.progress.ProgressColumn, line: Callable[[], str], **settings: Any) -> None:
        self._above = line
        super().__init__(*columns, **settings)

    def get_renderables(self) -> Iterable[RenderableType]:
        if line := self._above():
            yield Text(line, no_wrap=True, overflow="ellipsis")
        yield from super().get_renderables()


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
        self._deadline = 0.0
        self._phase: _Phase | None = None
        self._ahead = _Ahead()
        self._made, self._pace = 0, 0.0
        self._best = ""
        self._best_loss: float | None = None
        self._waiting_for = 0
        self._doing, self._pictures = "", 0
        self._said_at = time.monotonic()
        self.laps = Laps()
        """Of phases, and of what happens in them; the search counts as one."""

    def __enter__(self) -> Self:
        if not self._quiet and self._console.is_terminal:
            self._bar = _Bars(
                rich.progress.TextColumn("{task.description}"),
                rich.progress.BarColumn(_BAR_WIDTH),
                rich.progress.MofNCompleteColumn(),
                rich.progress.TextColumn("{task.fields[note]}"),
                line=self.phases,
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

    def phase(self, name: str, kept: str, then: str = "") -> None:
        """A phase begins that takes what was expected of those ahead, and after it what ``then`` says.

        Args:
            name: What it is called.
            kept: What stays if somebody interrupts it, with its verb.
            then: What follows, in words.
        """
        self.laps.begin(name)
        self._phase = _Phase(name, kept, time.monotonic(), self._expected())
        self._ahead = _Ahead(then)
        if self._bar is None:
            about = "" if self._phase.seconds is None else f", about {clock(self._phase.seconds)}"
            self._line(name + about + self._follows())

    def then(self, words: str, pictures: float, searches: int = 0) -> None:
        """Say what follows the search: in ``words``, in pictures as candidates make them, and in searches as long."""
        self._ahead = _Ahead(words, pictures, searches)

    def phases(self) -> str:
        """``search 2:10 of 4:00, then the last round, about 1:30``."""
        phase = self._phase
        if phase is None:
            return ""
        left = self._left() if phase.seconds is None else phase.seconds - phase.elapsed
        known = math.isfinite(left) and left > 0
        of = f" of {'about ' * (phase.seconds is not None)}{clock(phase.elapsed + left)}" if known else ""
        return f"{phase.name} {clock(phase.elapsed)}{of}{self._follows()}"

    def interrupted(self, folder: object) -> str | None:
        """What is kept in ``folder`` where somebody interrupts the run now; None before it has begun."""
        if self._phase is None:
            return None
        kept = self._phase.kept or f"{self._done} of {self._total} candidates are"
        return f"interrupted in the {self._phase.name}; {kept} in {folder}, repeat the same command to go on"

    def stage(self, text: str, pictures: int = 0) -> None:
        """Something begins that makes ``pictures`` pictures (0: takes no time worth a bar)."""
        _LOG.info("%s", text)
        if self._phase is not None and self._phase.name != _SEARCH:
            self.laps.begin(text)
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
        self.laps.begin(_SEARCH)
        self._phase = _Phase(_SEARCH, "", time.monotonic())
        self._deadline = self._phase.began + timeout
        self._made, self._pace = 0, 0.0
        self._best, self._best_loss = "", None
        if self._bar is not None:
            if self._trials is not None:
                self._bar.remove_task(self._trials)
            self._trials = self._bar.add_task("candidates", total=total, completed=done, note="")
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

    def cut_off(self, candidates: int, trials: int, timeout: float) -> None:
        """The search's time is over before there are ``trials`` candidates."""
        sentence = (
            f"The search's time of {clock(timeout)} is over after {candidates} of {trials} candidates; "
            "the same command again tries the others."
        )
        _LOG.info("%s", sentence)
        self._line(sentence)

    def others(self, trials: int) -> None:
        """Nothing is left to begin; other workers are at work on so many trials, or died and are not missed yet."""
        if self._waiting_for != trials:
            self._waiting_for = trials
            self.stage(f"waiting for {trials} trial{'s' if trials > 1 else ''} of other workers")

    def report(self, report: Report) -> None:
        """A trial ended."""
        if report.loss is not None and report.proposal is not None and not report.pruned and report.feasible:
            self.best(report.loss, report.proposal.cost.relative, report.proposal.policy.id)
        self._made += report.pictures
        if self._phase is not None and self._made:
            self._pace = self._phase.elapsed / self._made
        self._ended(report.trial, _said(report), counts=report.duplicate_of is None)

    def elsewhere(self, report: OtherReport) -> None:
        """A trial of another worker ended, which counts as much."""
        if report.loss is not None and not report.pruned and report.feasible and report.policy_id is not None:
            self.best(report.loss, report.relative_cost or 0.0, report.policy_id)
        self._ended(report.trial, _said_elsewhere(report), counts=True)

    def notice(self, sentence: str) -> None:
        """Show a sentence that concerns the user even where nothing else is shown; from any thread."""
        _LOG.warning("%s", sentence)
        self._console.print(sentence, markup=False, soft_wrap=True)

    def _ended(self, trial: int, said: str, *, counts: bool) -> None:
        self._done += counts
        _LOG.info("trial %d: %s", trial, said)
        if self._bar is not None and self._trials is not None:
            # What does not fit is lost.
            room = max(self._console.width - _BESIDES - _BAR_WIDTH, 0)
            self._bar.update(self._trials, completed=self._done, note=self._best[:room])
        elif counts:
            parts = (f"{self._done}/{self._total}", said, self._best, self.phases())
            self._line("  ".join(filter(None, parts)))

    def _left(self) -> float:
        """Seconds until the search ends, by its deadline or by its pace."""
        if self._phase is None or not self._total:
            return math.inf
        left = self._deadline - time.monotonic()
        if self._done > self._done_before:
            left = min(left, self._phase.elapsed / (self._done - self._done_before) * (self._total - self._done))
        return left

    def _expected(self) -> float | None:
        """Seconds of what is ahead; None where the search has no pace yet."""
        ahead, phase = self._ahead, self._phase
        if phase is None or ((ahead.pictures or ahead.searches) and not self._pace):
            return None
        searches = ahead.searches * (phase.elapsed + self._left()) if ahead.searches else 0.0
        expected = searches + ahead.pictures * self._pace
        return expected if 0 < expected < math.inf else None

    def _follows(self) -> str:
        if not self._ahead.words:
            return ""
        expected = self._expected()
        return f", then {self._ahead.words}" + ("" if expected is None else f", about {clock(expected)}")

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


def _said_elsewhere(report: OtherReport) -> str:
    """How a trial of another worker ended."""
    result = "failed" if report.loss is None else "pruned" if report.pruned else f"loss {report.loss:.3f}"
    cost = "" if report.relative_cost is None else f"{report.relative_cost:.1%}"
    return "  ".join(filter(None, (f"{result} at {report.worker}", cost, report.policy_id)))


def clock(seconds: float) -> str:
    """``2:10``, or ``1:02:10``."""
    minutes, rest = divmod(max(round(seconds), 0), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
