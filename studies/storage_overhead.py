"""How much of many workers' time one database takes: real searches whose evaluations only sleep.

python -m studies.storage_overhead [--workers 8] [--trials 208] [--seconds 1] [--storage URL]

Everything but the pictures is real: sampler, refinement, attributes, notes, artifacts, signs of life. (Nobody gives up
early, which would be told batch by batch.) Counted is the time that workers spend inside of storage calls, or wait for
those that another thread makes meanwhile. Without ``--storage`` a PostgreSQL server is started on this machine, which
then serves the workers and runs them as well; what else it runs slows every call down, so its load is printed.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import random
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.pruners import NopPruner
from optuna.storages import BaseStorage
from PIL import Image

from autotune.cost import parse_budget
from autotune.options import SetupOptions
from autotune.policy import Policy
from autotune.search.candidate_scores import CandidateResult, CandidateScorer
from autotune.search.local_search import Refiner
from autotune.search.loop import search
from autotune.search.trial_runner import TrialRunner
from autotune.study.heartbeat import close
from autotune.study.storage import PatientStorage
from autotune.study.trials import Trials, enqueue_recipes, evaluated, is_repetition, open_study
from autotune.study.write_queue import WriteQueue
from autotune.workflows.progress import Progress
from autotune.workflows.quiet import quiet_optuna
from autotune.workflows.setup import Setup, prepare
from studies.postgres import Server

NAME = "storage-overhead"


class SleepingScorer(CandidateScorer):
    """Tells what a candidate is told, after a while; its pictures and scores are made up."""

    ceiling = None
    pruner = NopPruner()

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def result(self, trial: optuna.Trial, policy: Policy, known: Trials, grid: Path) -> CandidateResult:
        time.sleep(self.seconds)
        grid.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64)).save(grid)
        loss = 1 / policy.steps + random.Random(policy.key).random()
        names = ("distance", "alignment", "fidelity", "loss", "loss_low", "loss_high")
        return CandidateResult(dict.fromkeys(names, loss), 64, pruned=False)


@dataclass
class Clock:
    """Time inside the storage's calls, of the thread that works: signs of life are given by another."""

    total: float = 0.0
    calls: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    statements: int = 0
    transactions: int = 0
    _inside: bool = False

    def watch(self) -> None:
        """Measure all calls from now on. A call within a call is part of it."""
        for name in dir(BaseStorage):
            if not name.startswith("_"):
                setattr(PatientStorage, name, self._timed(name, getattr(PatientStorage, name)))
        setattr(WriteQueue, "settle", self._timed("(waiting for the thread)", WriteQueue.settle))  # noqa: B010

    def count(self, engine: sqlalchemy.Engine) -> None:
        """Count what is asked of the database, by whatever thread."""

        def asked(*_: Any) -> None:
            self.statements += 1

        def committed(_: Any) -> None:
            self.transactions += 1

        sqlalchemy.event.listen(engine, "before_cursor_execute", asked)
        sqlalchemy.event.listen(engine, "commit", committed)

    def _timed(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self._inside or threading.current_thread() is not threading.main_thread():
                return method(*args, **kwargs)
            self._inside, started = True, time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                taken = time.perf_counter() - started
                self._inside = False
                self.total += taken
                self.calls[name] += 1
                self.seconds[name] += taken

        return call


def work(setup: Setup, url: str, folder: Path, number: int, trials: int, seconds: float, results: Any) -> None:
    clock = Clock()
    with quiet_optuna(), Progress(quiet=True) as progress:
        study = open_study(NAME, url, setup.configuration)
        runner = TrialRunner(study, setup.proposer, SleepingScorer(seconds), folder)
        clock.watch()
        clock.count(study._storage._backend.engine)  # type: ignore[attr-defined]
        started, cpu = time.perf_counter(), time.process_time()
        refiner = Refiner(setup.proposer, number)
        search(
            study, runner, refiner, sampler="tpe", trials=trials, timeout=float("inf"), seed=number, progress=progress
        )
    times = time.perf_counter() - started, time.process_time() - cpu, clock.total
    results.put((*times, dict(clock.calls), dict(clock.seconds), clock.statements, clock.transactions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=208)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--storage", help="URL of an empty database", default=None)
    options = parser.parse_args()
    (setup,) = prepare(None, [parse_budget("40%")], SetupOptions(images=64, held_out_images=64))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = options.storage
        if url is None:
            server = Server()
            stack.callback(server.remove)
            url = server.url
        with quiet_optuna():
            study = open_study(NAME, url, setup.configuration)
            enqueue_recipes(study, [(recipe.name, recipe.proposal.values) for recipe in setup.recipes])
            close(study, False)
        # A pool of connections must not be shared with children.
        study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
        before = os.getloadavg()[0]
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        arguments = [(setup, url, folder, n, options.trials, options.seconds, results) for n in range(options.workers)]
        workers = [context.Process(target=work, args=each) for each in arguments]
        for worker in workers:
            worker.start()
        measured = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
        everything = study.get_trials(deepcopy=False)
        trials, counted = len(everything), len(evaluated(study))
        repeated = sum(is_repetition(trial) for trial in everything)
        print(
            f"{options.workers} workers, {counted} evaluations of {options.seconds:g} s; besides,"
            f" {repeated} repetitions and {trials - repeated - counted} trials begun that were not needed"
        )
    wall, cpu, inside = (sum(each[n] for each in measured) for n in range(3))
    load = ", ".join(f"{each:.1f}" for each in (before, os.getloadavg()[0]))
    print(f"{os.cpu_count()} cores, on which {load} processes wanted to run before and after (mean of a minute)")
    print(f"processor time {cpu / wall:.1%} of the workers' {wall:.0f} s")
    print(f"inside storage calls: {inside:.1f} s, {inside / wall:.1%} (target: 10 % at most)")
    statements, transactions = (sum(each[n] for each in measured) / trials for n in (5, 6))
    print(f"of each trial: {statements:.0f} statements in {transactions:.1f} transactions")
    names = set().union(*(each[4] for each in measured))
    calls = {name: sum(each[3].get(name, 0) for each in measured) for name in names}
    seconds = {name: sum(each[4].get(name, 0.0) for each in measured) for name in names}
    for name in sorted(names, key=lambda each: -seconds[each])[:6]:
        print(f"  {name:32} {calls[name] / trials:5.1f} a trial, {1000 * seconds[name] / calls[name]:6.1f} ms each")


if __name__ == "__main__":
    main()
