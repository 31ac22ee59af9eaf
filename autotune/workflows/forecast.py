"""What a search will try and how long it will take, known before it begins and without writing anything."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from autotune.cost import Cost
from autotune.evaluation.exact_runs import pairs
from autotune.evaluation.judges import Judges
from autotune.policy import Policy
from autotune.quality.sequential import looks
from autotune.search.pruning import first_look, usual_share
from autotune.workflows.evaluators import shipped_full_run
from autotune.workflows.last_round import FINALISTS, TIMED_IMAGES
from autotune.workflows.progress import Progress
from autotune.workflows.setup import Setup

# Calls that the last round times of each: full run, fewer steps, the best.
_TIMED_CALLS, _TIMED_POLICIES = 5, 3

# Of the full run's time, what an exact run with a candidate's guidance takes: half of its steps are guided.
_EXACT_SHARE = 0.75

# Of the exact runs that candidates are compared with, those of which a candidate comes past the early looks: 0.2 to 0.4
# in searches of the shipped models.
_COMPARED_FURTHER = 0.3

# A measurement takes no more than about three times this, unless a single step of a single picture does.
_CHEAP_SECONDS = 10.0


@dataclass(frozen=True)
class PricedRun:
    """A known setting at the budget. ``latency_ms`` is of a call on the target; None where none is known."""

    name: str
    steps: int
    relative: float
    latency_ms: float | None


@dataclass(frozen=True)
class Pace:
    """How fast pictures of the full run are made.

    Attributes:
        pictures: In the call that was measured.
        steps: Of that call; fewer than the full run's where that would have taken long.
        seconds: A picture of the full run; extrapolated where ``steps`` are fewer.
        fixed: What a picture takes of that whatever its steps, such as reading its prompt.
    """

    pictures: int
    steps: int
    seconds: float
    fixed: float = 0.0

    def share(self, steps: float) -> float:
        """Of the full run's time, what a picture takes whose steps take the share ``steps`` of the full run's."""
        fixed = min(self.fixed / self.seconds, 1.0) if self.fixed else 0.0
        return fixed + steps * (1 - fixed)


@dataclass(frozen=True)
class Forecast:
    """One budget's search, as far as it is known before.

    Attributes:
        budget: As the user wrote it.
        runs: The full run, fewer steps, then all other recipes.
        trials: Candidates that are asked for.
        fitting: Candidates that begin before the time is up, at most ``trials``; known settings run anyhow.
        candidate_seconds: One of which all pictures are made.
        usual_seconds: One as it usually goes: most are pruned on their first pictures.
        search_seconds: All candidates that run.
        last_round_seconds: The finalists' held-out pictures, all of them, and times.
        spared_seconds: What the finalists spare of that where the first look decides.
        intents: Most exact runs that candidates are compared with, on tuning inputs.
        exact_pictures: Of each of them at most; of those whose candidates are all pruned early there are fewer.
        exact_seconds: All exact runs, those of the finalists included.
    """

    budget: str
    runs: tuple[PricedRun, ...]
    trials: int
    fitting: int
    candidate_seconds: float
    usual_seconds: float
    search_seconds: float
    last_round_seconds: float
    spared_seconds: float = 0.0
    intents: int = 0
    exact_pictures: int = 0
    exact_seconds: float = 0.0

    @property
    def exact_share(self) -> float:
        """Of exact runs, as a share of the time that candidates and they take."""
        return self.exact_seconds / (self.exact_seconds + self.search_seconds + self.last_round_seconds)


def forecast(setup: Setup, pace: Pace, *, trials: int, timeout: float, workers: int = 1) -> Forecast:
    """What one budget's search will do.

    Args:
        setup: The search.
        pace: Of its pictures, see :func:`measure_pace`.
        trials: Candidates that are asked for.
        timeout: Seconds after which no further candidate begins. Known recipes always run.
        workers: How many evaluate candidates, each at that pace; the last round is the tuner's alone.
    """
    full = _full_cost(setup)
    # Known times of calls are of all that they do.
    share = _share(setup) if full.latency_ms else pace.share(_share(setup))
    candidate = share * pace.seconds * len(setup.tuning.rows)
    looks = first_look(setup.judges.panel)
    usual = candidate * (usual_share(len(setup.tuning.rows), looks) if setup.configuration.early_stopping else 1)
    fitting = min(trials, math.ceil(timeout / usual) * workers)
    held_out = len(setup.held_out.rows)
    candidates = max(fitting, len(setup.recipes))
    searched, last = (_pictures_in_pairs(judges) for judges in (setup.judges, setup.last_judges))
    # Without guidance of its own a policy is compared with the full run, whose pictures are there. Of 48 candidates 14
    # to 23 had intents of their own.
    intents = math.ceil(candidates / 2) if searched and setup.maker.guided else 0
    images = len(setup.tuning.rows)
    early, most = (pairs(made, images, searched) for made in (min(looks, images), images))
    further = _COMPARED_FURTHER if setup.configuration.early_stopping else 1
    exact = intents * (early + further * (most - early)) + min(intents, FINALISTS) * min(last, held_out)
    runs = [_priced("full run", setup.full, full)]
    runs += [_priced(each.name, each.proposal.policy, each.proposal.cost) for each in setup.recipes]
    return Forecast(
        budget=str(setup.budget),
        runs=tuple(runs),
        trials=trials,
        fitting=fitting,
        candidate_seconds=candidate,
        usual_seconds=usual,
        search_seconds=math.ceil(candidates / workers) * usual,
        last_round_seconds=_last_round_pictures(setup, share) * pace.seconds,
        spared_seconds=(1 + FINALISTS) * share * _spared(setup) * pace.seconds,
        intents=intents,
        exact_pictures=most,
        exact_seconds=exact * _EXACT_SHARE * pace.seconds,
    )


def pictures_after(setups: Sequence[Setup], searched: Setup) -> float:
    """What the last rounds of all budgets take, in pictures of a usual candidate of the one that is ``searched``."""
    shares = {id(setup): _share(setup) for setup in setups}
    last_rounds = sum(_last_round_pictures(setup, shares[id(setup)]) for setup in setups)
    full = 0 if shipped_full_run(searched) else len(searched.held_out.rows)
    return (full + last_rounds) / shares[id(searched)]


def _pictures_in_pairs(judges: Judges) -> int:
    """Pictures of each run that are compared with an exact run's."""
    return judges.error_pictures if judges.panel.errors else 0


def _last_round_pictures(setup: Setup, share: float) -> float:
    """In pictures of the full run, of whose time a candidate's take a ``share``; without those that budgets share."""
    held_out = len(setup.held_out.rows)
    timed = _TIMED_CALLS * min(TIMED_IMAGES, held_out) * (1 + (_TIMED_POLICIES - 1) * share)
    return (1 + FINALISTS) * share * held_out + timed


def _spared(setup: Setup) -> int:
    """Held-out pictures of a run that are not made where the first look decides."""
    return len(setup.held_out.rows) - first_pictures(setup)


def first_pictures(setup: Setup) -> int:
    """Held-out pictures of the last round's first look."""
    return looks([row.key for row in setup.held_out.rows])[0].pictures


def _share(setup: Setup) -> float:
    """Time of a candidate as a share of the full run's."""
    return _time_share(setup.recipes[0].proposal.cost, _full_cost(setup))


def _full_cost(setup: Setup) -> Cost:
    latency = setup.deployed.price(setup.full, setup.call_batch).latency_ms
    return replace(setup.pricer.price(setup.full), latency_ms=latency)


def shared_seconds(setup: Setup, pace: Pace) -> float:
    """The full run's pictures, which all budgets share: of the tuning and held-out inputs, and as a reference.

    None of them are made where they come with a shipped model.
    """
    if shipped_full_run(setup):
        return 0.0
    tuning = len(setup.tuning.rows)
    own_reference = tuning if setup.judges.referring.keys() - setup.references.keys() else 0
    return (own_reference + tuning + len(setup.held_out.rows)) * pace.seconds


def measure_pace(setup: Setup, progress: Progress) -> Pace:
    """Time a call of the full run with as many pictures as the search makes in one.

    Where that would take long, fewer pictures and then fewer steps are timed.
    """
    whole_calls = replace(setup, maker=replace(setup.maker, prefixes=None))

    def call(pictures: int, steps: int) -> None:
        policy = setup.full if steps == setup.full.steps else setup.full.model_copy(update={"steps": steps})
        for _ in whole_calls.pictures(policy, setup.tuning.rows[:pictures], setup.tuning.seeds[:pictures]):
            pass

    most = min(setup.configuration.batch_size, len(setup.tuning.rows))
    progress.stage(f"timing a call of up to {most} pictures of the full run")
    return pace_of(call, most, setup.full.steps, fewest=setup.maker.fewest_steps)


def pace_of(
    call: Callable[[int, int], object],
    most_pictures: int,
    steps: int,
    *,
    fewest: int = 1,
    cheap: float = _CHEAP_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> Pace:
    """How fast pictures are made, from a few calls.

    Args:
        call: Makes so many pictures in so many steps and returns when they are there.
        most_pictures: In a call.
        steps: Of the full run.
        fewest: Steps that a call has at least.
        cheap: Seconds that a call may take; it has one picture and the fewest steps at least.
        clock: Seconds.
    """

    def seconds(pictures: int, count: int) -> float:
        started = clock()
        call(pictures, count)
        return clock() - started

    # The first call of all prepares what later ones find there.
    seconds(1, fewest)
    smallest = max(seconds(1, fewest), 1e-6)
    pictures = min(max(int(cheap / smallest), 1), most_pictures)
    timed = min(max(int(cheap / (smallest * pictures)), 1) * fewest, steps)
    # The first call of this many pictures prepares what later ones find there, too.
    few = seconds(pictures, fewest) if timed > fewest else 0.0
    if 0 < few < cheap / 4:
        few = min(few, seconds(pictures, fewest))
    taken = seconds(pictures, timed) if (pictures, timed) != (1, fewest) else smallest
    if taken < cheap / 2:
        taken = min(taken, seconds(pictures, timed))
    # What is not the steps', such as decoding, is part of the shorter call too.
    step = max((taken - few) / (timed - fewest) if timed > fewest else taken / fewest, 0.0)
    fixed = min(max(few - step * fewest, 0.0), taken) if timed > fewest else 0.0
    return Pace(pictures, timed, (taken + step * (steps - timed)) / pictures, fixed / pictures)


def _priced(name: str, policy: Policy, cost: Cost) -> PricedRun:
    return PricedRun(name, policy.steps, cost.relative, cost.latency_ms)


def _time_share(cost: Cost, full: Cost) -> float:
    """Of the full run's time: as the target tells, else as the FLOPs do."""
    if cost.latency_ms is None or not full.latency_ms:
        return cost.relative
    return cost.latency_ms / full.latency_ms


def total_seconds(forecasts: Sequence[Forecast], shared: float) -> float:
    """The whole run, of several budgets one after the other, where no last round ends before its last look."""
    return shared + sum(each.search_seconds + each.last_round_seconds + each.exact_seconds for each in forecasts)


def spared_seconds(setup: Setup, forecasts: Sequence[Forecast], pace: Pace) -> float:
    """What a run spares of that where the first look decides at every budget."""
    full = 0 if shipped_full_run(setup) else _spared(setup)
    return full * pace.seconds + sum(each.spared_seconds for each in forecasts)
