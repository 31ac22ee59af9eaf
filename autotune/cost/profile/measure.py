"""Measuring a hardware profile: the denoiser's units at every latent size, and whole calls to correct their sum by.

Everything is timed in turn, round by round, and told as medians: a machine that slows down for a while then
favours nobody.
"""

from __future__ import annotations

import datetime
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, get_args

import torch
from torch import nn

from autotune.core.errors import InputError
from autotune.core.naming import CompileMode
from autotune.cost.hardware_profile import BatchTimes, CalibrationRun, Profile, ProfileError, rounded
from autotune.cost.latency import LatencyModel
from autotune.cost.pricing import Pricer
from autotune.cost.profile.calibration import UNCORRECTED, fit_corrections
from autotune.cost.profile.capture import CapturedCall, capture
from autotune.cost.profile.environment import describe_device, versions
from autotune.cost.profile.subject import Call, Subject
from autotune.cost.profile.timers import Around, UnitTimer
from autotune.pipelines.bars import without_bars
from autotune.plan import accepted_scales
from autotune.policy import Policy
from autotune.runtime import applied
from autotune.runtime.apply import runs_under_policies

ROUNDS = 15
_WARM_UP = 3
# Single calls are short and timed in every round; units, and whole calls, less often.
_UNITS_EVERY = 2
_WHOLE_EVERY = 3
_LAUNCHES = 200

OnProgress = Callable[[str, int, int], None]


def measure_profile(
    pipe: Any,
    *,
    height: int | None = None,
    width: int | None = None,
    frames: int | None = None,
    batches: Sequence[int] = (1,),
    guided: bool | None = None,
    scales: Sequence[float] | None = None,
    compile_mode: CompileMode = "none",
    call: Call | None = None,
    text_tokens: int | None = None,
    rounds: int = ROUNDS,
    on_progress: OnProgress | None = None,
) -> Profile:
    """Measure how long the parts of the pipeline's calls take on its device.

    Args:
        height, width: of the pictures, in pixels; the model's native size by default.
        frames: of videos; the pipeline's default by default.
        batches: pictures in a call, each profiled on its own.
        guided: whether calls use classifier-free guidance; None is what the pipeline does by default.
        scales: of a side of the latents, each in (0, 1]; by default all from a quarter on that the denoiser accepts.
        compile_mode: how the denoiser is compiled: not at all, or a mode of ``torch.compile``. The parts of a
            compiled call are told apart by the plain one's.
        call: arguments of a call of the pipeline for so many pictures where an example prompt will not do.
        text_tokens: tokens the denoiser gets for a prompt; by default the length that the pipeline pads to.
        rounds: how often every call of the denoiser is timed.
        on_progress: told what is being measured, how many measurements are done and how many there are.

    Raises:
        InputError: the pipeline is not supported, or already runs under a policy.
        ProfileError: a batch, scale or compile mode that cannot be.
    """
    _check(pipe, batches, scales, compile_mode, rounds)
    pricer = Pricer(pipe, height, width, frames=frames, guided=guided, text_tokens=text_tokens)
    subject = Subject(pipe, pricer, frames, _scales(pricer, scales), compile_mode, rounds, call)
    progress = _Count(on_progress, _measurements(subject) * len(batches))
    with without_bars(pipe), torch.no_grad():
        return Profile(
            date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            device=describe_device(subject.device),
            dtype=str(next(subject.denoiser.parameters()).dtype).removeprefix("torch."),
            compile=compile_mode,
            versions=versions(),
            model=pricer.subject,
            launch_ms=rounded(_launch_ms(subject)),
            batches=tuple(_measure_batch(subject, batch, progress) for batch in batches),
        )


def _measurements(subject: Subject) -> int:
    """Timed calls for one batch size."""
    single = _WARM_UP + subject.rounds + _times(subject.rounds, _UNITS_EVERY)
    whole = 1 + _times(subject.rounds, _WHOLE_EVERY)
    return single * len(subject.scales) * len(subject.branch_counts) + whole * len(subject.calibrations)


def _measure_batch(subject: Subject, batch: int, progress: _Count) -> BatchTimes:
    progress.begin(f"batch {batch}")
    calls = [capture(subject, batch, scale, branches) for scale in subject.scales for branches in subject.branch_counts]
    order = random.Random(0)
    timer = UnitTimer(subject.denoiser, subject.pricer.structure, subject.clock)
    for call in calls:
        for _ in range(_WARM_UP):
            call.through(subject.denoiser)()
            progress.advance()
    for _ in range(_times(subject.rounds, _UNITS_EVERY)):
        for call in order.sample(calls, len(calls)):
            call.shares.append(timer.shares(call.through(subject.denoiser)))
            progress.advance()
    around = Around(subject.pipe, subject.clock)
    with _compiled(subject.denoiser, subject.compile_mode):
        whole = _time_calls(subject, batch, calls, around, order, progress)
    times = BatchTimes(
        batch=batch,
        text_encoder_ms=rounded(around.text_encoder_ms),
        decoder_ms=rounded(around.decoder_ms),
        calls=tuple(call.times(len(subject.pricer.structure.units)) for call in calls),
        corrections=UNCORRECTED,
        calibration=(),
    )
    return _calibrated(subject, times, whole)


def _time_calls(
    subject: Subject, batch: int, calls: Sequence[CapturedCall], around: Around, order: random.Random, progress: _Count
) -> list[float]:
    """Time calls of the denoiser and, in between, of the whole pipeline: the medians of the latter."""
    policies = subject.calibrations
    whole: dict[str, list[float]] = {policy.key: [] for policy in policies}
    if subject.compile_mode != "none":
        for call in calls:
            call.through(subject.denoiser)()
    for policy in policies:
        _whole_ms(subject, policy, batch)
        progress.advance()
    for number in range(subject.rounds):
        for call in order.sample(calls, len(calls)):
            call.forward_ms.append(subject.clock.milliseconds(call.through(subject.denoiser)))
            progress.advance()
        if number % _WHOLE_EVERY == 0:
            for policy in order.sample(policies, len(policies)):
                with around.timed():
                    whole[policy.key].append(_whole_ms(subject, policy, batch))
                progress.advance()
    return [statistics.median(whole[policy.key]) for policy in policies]


def _whole_ms(subject: Subject, policy: Policy, batch: int) -> float:
    """Milliseconds of a call of the pipeline under ``policy``."""
    arguments = subject.arguments(batch)
    with applied(subject.pipe, policy):
        return subject.clock.milliseconds(lambda: subject.pipe(**arguments))


def _calibrated(subject: Subject, times: BatchTimes, measured: Sequence[float]) -> BatchTimes:
    """``times`` with corrections that bring predictions to what whole calls took."""
    policies, structure = subject.calibrations, subject.pricer.structure
    plans = [subject.pricer.plan(policy) for policy in policies]
    model = LatencyModel(structure, times, separate=subject.separate)
    around = times.text_encoder_ms + times.decoder_ms
    corrections = fit_corrections([model.parts(plan) for plan in plans], [ms - around for ms in measured])
    times = times.model_copy(update={"corrections": corrections})
    model = LatencyModel(structure, times, separate=subject.separate)
    runs = tuple(
        CalibrationRun(policy=policy.id, predicted_ms=rounded(model.predict(plan)), measured_ms=rounded(ms))
        for policy, plan, ms in zip(policies, plans, measured, strict=True)
    )
    return times.model_copy(update={"calibration": runs})


def _launch_ms(subject: Subject) -> float:
    """Of starting one small operation, among many."""
    small = torch.zeros(1, device=subject.device)

    def launch() -> None:
        for _ in range(_LAUNCHES):
            small.add_(1)

    launch()
    return min(subject.clock.milliseconds(launch) for _ in range(_WARM_UP)) / _LAUNCHES


class _Count:
    """How many of all measurements are done."""

    def __init__(self, tell: OnProgress | None, total: int) -> None:
        self._tell = tell
        self._total = total
        self._done = 0
        self._what = ""

    def begin(self, what: str) -> None:
        self._what = what
        self._report()

    def advance(self) -> None:
        self._done += 1
        self._report()

    def _report(self) -> None:
        if self._tell is not None:
            self._tell(self._what, self._done, self._total)


def _check(pipe: Any, batches: Sequence[int], scales: Sequence[float] | None, compile_mode: str, rounds: int) -> None:
    if runs_under_policies(pipe):
        raise InputError("the pipeline already runs under a policy; call autotune.remove_policy(pipe) before profiling")
    if not batches or min(batches) < 1 or len(set(batches)) < len(batches):
        raise ProfileError(f"batches {list(batches)} must be different numbers of pictures, each at least 1")
    if scales is not None and not all(0 < scale <= 1 for scale in scales):
        raise ProfileError(f"scales {list(scales)} must lie above 0 and at most at 1")
    if compile_mode not in get_args(CompileMode):
        raise ProfileError(f"compile mode {compile_mode!r} is unknown; use one of {', '.join(get_args(CompileMode))}")
    if rounds < 1:
        raise ProfileError(f"rounds is {rounds}; every call must be timed at least once")


def _scales(pricer: Pricer, wanted: Sequence[float] | None) -> tuple[Fraction, ...]:
    """The scales to profile, growing; full size is always one of them."""
    accepted = accepted_scales(pricer.height, pricer.width, pricer.structure.size_multiple)[
        -1 if "resolution" in pricer.refuses else 0 :
    ]
    if wanted is None:
        return accepted
    chosen = {Fraction(scale).limit_denominator(1000) for scale in wanted} | {Fraction(1)}
    for scale in sorted(chosen - set(accepted)):
        listed = ", ".join(f"{float(scale):g}" for scale in accepted)
        raise ProfileError(f"scale {float(scale):g} does not fit this denoiser; use some of {listed}")
    return tuple(sorted(chosen))


def _times(rounds: int, every: int) -> int:
    """How often something happens that happens in the first of so many rounds."""
    return -(-rounds // every)


@contextmanager
def _compiled(denoiser: nn.Module, mode: CompileMode) -> Iterator[None]:
    if mode == "none":
        yield
        return
    before = denoiser._compiled_call_impl
    denoiser.compile(mode=mode)
    try:
        yield
    finally:
        denoiser._compiled_call_impl = before
