"""Hypothesis strategies: valid policies, and what becomes of their documents in careless or hostile hands."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any

from hypothesis import strategies as st

from autotune.policy import (
    MAX_BYTES,
    CacheRule,
    ContenderQuality,
    Guidance,
    Interval,
    MeasuredTime,
    ModelInfo,
    Policy,
    PolicyCost,
    PolicyQuality,
    Provenance,
    ResolutionStage,
    SchedulerChoice,
)

UNITS = ("up_blocks.0", "up_blocks.1", "mid_block")
PATTERNS = ("up_blocks.0-1", "**.attn2", "up_blocks.*.resnets.0")
SPACINGS = ("default", "leading", "linspace", "trailing", "karras", "exponential", "beta")

_INTERVAL = Interval(value=0.5, low=0.25, high=0.75)
_QUALITY = ContenderQuality(loss=_INTERVAL, distance=_INTERVAL, alignment=_INTERVAL, fidelity=_INTERVAL)
RECORDS: dict[str, Any] = {
    "model": ModelInfo(
        pipeline="StableDiffusionPipeline",
        denoiser="UNet2DConditionModel",
        denoiser_fingerprint="0123456789abcdef",
        scheduler="DDIMScheduler",
        scheduler_fingerprint="fedcba9876543210",
        height=64,
        width=64,
        full_steps=50,
    ),
    "budget": "40%",
    "cost": PolicyCost(
        flops=10**12,
        macs_conv_linear=4 * 10**11,
        relative=0.4,
        cache_bytes=4096,
        measured=(MeasuredTime(device="a GPU", batch_size=1, ms_per_image=12.5, relative=0.45),),
    ),
    "quality": PolicyQuality(
        prompts=100,
        images=200,
        scorer="CLIP",
        network="efficientnet-lite0",
        estimator="kid",
        weights={"fd": 1.0, "clip": 0.5},
        policy=_QUALITY,
        full=_QUALITY,
        fewer_steps=_QUALITY,
        fewer_steps_count=8,
        difference=_INTERVAL,
    ),
    "provenance": Provenance(study="s", trial=3, seed=0, date="2026-01-01", versions={"torch": "2"}),
}


@st.composite
def policies(draw: st.DrawFn, units: Sequence[str] = UNITS, *, everything: bool = False) -> Policy:
    """Valid policies that cache ``units``; with ``everything`` they use every field of the language."""
    steps = draw(st.integers(2, 60))
    until = sorted(draw(st.sets(st.integers(1, steps - 1), max_size=2)))
    scales = sorted(draw(st.sets(st.sampled_from([0.25, 0.5, 0.75]), min_size=len(until), max_size=len(until))))
    handoff: Any = draw(st.sampled_from(["renoise", "noise_matched"])) if everything else "renoise"
    stop = draw(st.none() | st.integers(1, steps))
    after: Any = draw(st.sampled_from(["nothing", "cross_attention"])) if everything and stop != steps else "nothing"
    mode: Any = draw(st.sampled_from(["reuse", "forecast", "residual"] if everything else ["reuse", "forecast"]))
    order = draw(st.integers(1, 2)) if mode == "forecast" or (mode == "residual" and draw(st.booleans())) else None
    rate = everything and stop is not None and draw(st.booleans())
    weighted = everything and mode != "reuse" and not rate and draw(st.booleans())
    # Weights of all would not fit into a file.
    most = 3 if weighted else None
    names = draw(st.sets(st.sampled_from((*units, *PATTERNS) if everything else units), max_size=most))
    # Where sizes change, results of before are of no use, which a rule with weights must say.
    computing = [
        tuple(sorted({0, *(until if weighted else ()), *draw(st.sets(st.integers(0, steps - 1)))})) for _ in names
    ]
    if weighted:
        order = None
    weights = [draw(_weights(compute, until, steps)) if weighted else None for compute in computing]
    factor = draw(st.sampled_from([0.5, 1.0, 1.75])) if everything and draw(st.booleans()) else None
    guided = None if stop is None else draw(guidance(stop, after, rate=rate, factor=factor))
    rate = guided is not None and guided.compute_steps is not None
    times = guided is not None and guided.factor is not None
    return Policy(
        steps=steps,
        resolution=tuple(
            ResolutionStage(scale=s, until_step=u, handoff=handoff) for s, u in zip(scales, until, strict=True)
        ),
        guidance=guided,
        cache=tuple(
            CacheRule(units=(name,), mode=mode, order=order, compute_steps=compute, weights=numbers)
            for name, compute, numbers in zip(sorted(names), computing, weights, strict=True)
        ),
        version=4 if times else 3 if rate or weighted else 2 if mode == "residual" and order else 1,
        **(draw(schedules(steps)) if everything else {}),
    )


@st.composite
def _weights(
    draw: st.DrawFn, compute: Sequence[int], until: Sequence[int], steps: int
) -> tuple[tuple[float, ...], ...]:
    """For every skipped step as many as there may be, or fewer."""
    found = []
    for step in sorted({*range(steps)}.difference(compute)):
        since = max((each for each in until if each <= step), default=0)
        there = sum(since <= each < step for each in compute)
        count = draw(st.integers(1, min(there, 3)))
        numbers = st.integers(-999, 999).map(lambda hundredths: hundredths / 100)
        found.append(
            (*draw(st.lists(numbers, min_size=count - 1, max_size=count - 1)), draw(numbers.filter(lambda x: x != 0)))
        )
    return tuple(found)


@st.composite
def guidance(draw: st.DrawFn, stop: int, after: Any, *, rate: bool, factor: float | None = None) -> Guidance:
    """Guidance until ``stop``; with ``rate`` it computes its unconditional branch in some of the steps."""
    computing = draw(st.sets(st.integers(0, stop - 1))) if rate else None
    computes = None if computing is None else tuple(sorted({0, *computing}))
    return Guidance(stop_step=stop, after=after, compute_steps=computes, factor=factor)


@st.composite
def schedules(draw: st.DrawFn, steps: int) -> dict[str, Any]:
    """The fields that choose solver and noise levels, for ``steps`` steps."""
    fields: dict[str, Any] = {}
    kind = draw(st.sampled_from(["spacing", "timesteps", "sigmas"]))
    if kind == "spacing":
        fields["timesteps"] = draw(st.sampled_from(SPACINGS))
    elif kind == "timesteps":
        first = draw(st.integers(steps, 100_000))
        fields["timesteps"] = tuple(range(first, first - steps, -1))
    else:
        step = draw(st.floats(0.001, 10))
        fields["sigmas"] = tuple(step * (steps - index) for index in range(steps))
    if draw(st.booleans()):
        fields["scheduler"] = SchedulerChoice(
            name="DPMSolverMultistepScheduler",
            config={
                "use_karras_sigmas": draw(st.booleans()),
                "solver_order": draw(st.integers(1, 3)),
                "lambda_min_clipped": draw(st.floats(allow_nan=False, allow_infinity=False)),
                "final_sigmas_type": draw(st.none() | st.sampled_from(["zero", "sigma_min"])),
                "trained_betas": draw(st.lists(st.floats(0, 1) | st.integers(0, 1), max_size=3).map(tuple)),
            },
        )
    return fields


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


_DEEPEST = _nested(5_000)
JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    1.0,
    0.5,
    -0.0,
    5e-324,
    1e308,
    1000,
    1001,
    2**53,
    2**63,
    2**64,
    10**30,
    -(10**400),
    10**5000,
    float("nan"),
    float("inf"),
    -float("inf"),
    "",
    "20",
    "default",
    "a\nb",
    "\u2028\x1b[31m",
    "\ud800",
    "x" * 201,
    "x" * 10**6,
    [],
    [0],
    [[]],
    [3, 2, 1],
    list(range(2000)),
    _nested(100),
    _DEEPEST,
    {},
    {"a": 1},
    {"value": 0},
    {"x" * 10**6: 1},
    {"": {"": {"": ""}}},
)


def _every(interval: int, *units: str, mode: Any = "reuse", order: int | None = None) -> CacheRule:
    return CacheRule(units=units, mode=mode, order=order, compute_steps=tuple(range(0, 6, interval)))


EXAMPLES: tuple[Policy, ...] = (
    Policy(steps=6),
    Policy(steps=6, timesteps="karras", guidance=Guidance(stop_step=4, after="cross_attention"), **RECORDS),
    Policy(steps=6, timesteps=(999, 800, 600, 400, 200, 0), cache=(_every(2, "up_blocks.1"),)),
    Policy(steps=6, sigmas=(14.6, 7.0, 3.0, 1.5, 0.5, 0.03), cache=(_every(3, "**.attn2", mode="residual"),)),
    Policy(
        steps=6,
        scheduler=SchedulerChoice(
            name="DPMSolverMultistepScheduler",
            config={
                "use_karras_sigmas": True,
                "solver_order": 2,
                "lambda_min_clipped": -5.1,
                "variance_type": None,
                "final_sigmas_type": "zero",
                "trained_betas": (0, 0.5),
            },
        ),
        resolution=(
            ResolutionStage(scale=0.25, until_step=1),
            ResolutionStage(scale=0.5, until_step=3, handoff="noise_matched"),
        ),
        guidance=Guidance(start_step=1, stop_step=5),
        cache=(
            _every(2, "up_blocks.0-1", "mid_block", mode="forecast", order=2),
            _every(3, "up_blocks.*.resnets.0"),
        ),
        provenance=RECORDS["provenance"],
    ),
    Policy(
        version=3,
        steps=6,
        resolution=(ResolutionStage(scale=0.5, until_step=3),),
        cache=(
            CacheRule(
                units=("up_blocks.1",),
                mode="forecast",
                compute_steps=(0, 1, 3),
                weights=((1.5, -0.5), (1.02,), (0.9,)),
            ),
        ),
    ),
    Policy(version=3, steps=6, guidance=Guidance(start_step=1, stop_step=6, compute_steps=(1, 3, 4))),
    Policy(version=4, steps=6, guidance=Guidance(start_step=2, stop_step=5, factor=1.5)),
)


def mutated_documents(examples: Sequence[Policy] = EXAMPLES) -> st.SearchStrategy[dict[Any, Any]]:
    """Documents of ``examples`` with one to three things changed: mostly no policy any more, sometimes still one."""
    return _seeds().map(lambda random: _mutated_document(random, examples))


def mutated_texts(examples: Sequence[Policy] = EXAMPLES) -> st.SearchStrategy[bytes]:
    """Policy files with one to three things changed, and bytes that never were one."""
    return _seeds().map(lambda random: _mutated_text(random, examples))


def _seeds() -> st.SearchStrategy[Random]:
    # Far cheaper than a draw per choice, and the choices are uniform; what fails is small enough as it is.
    return st.randoms(use_true_random=True)


def _mutated_document(random: Random, examples: Sequence[Policy]) -> dict[Any, Any]:
    document = random.choice(examples).to_dict()
    for _ in range(random.randint(1, 3)):
        places = _places(document)
        if places:
            random.choice(_MUTATIONS)(random, *random.choice(places))
    return document


def _mutated_text(random: Random, examples: Sequence[Policy]) -> bytes:
    kind = random.random()
    if kind < 0.02:
        return random.choice(_OVERSIZED)()
    if kind < 0.1:
        return random.randbytes(random.randint(0, 300))
    data = json.dumps(random.choice(examples).to_dict(), indent=random.choice([None, 1])).encode()
    for _ in range(random.choice([1, 1, 2, 3])):
        data = random.choice(_EDITS)(random, data)
    return data


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) of a JSON document."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        holder = waiting.pop()
        items = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
        # What an earlier mutation put in can be large: its first entries stand for it.
        for key, value in items[:50]:
            found.append((holder, key))
            if isinstance(value, dict | list) and len(found) < 500:
                waiting.append(value)
    return found


Mutation = Callable[[Random, Any, Any], None]
Edit = Callable[[Random, bytes], bytes]


def _replace(random: Random, holder: Any, key: Any) -> None:
    junk = random.choice(JUNK)
    # A copy, for the next mutation may change it; the deepest is too deep for deepcopy.
    holder[key] = _nested(5_000) if junk is _DEEPEST else deepcopy(junk)


def _delete(random: Random, holder: Any, key: Any) -> None:
    del holder[key]


def _add(random: Random, holder: Any, key: Any) -> None:
    junk = random.choice(JUNK[:25])
    if isinstance(holder, list):
        holder.insert(random.randint(0, len(holder)), junk)
    else:
        holder[random.choice(["stepz", "Steps", "", "a\nb", "steps ", 1, None, "\ud800", "x" * 10**5])] = junk


def _misspell(random: Random, holder: Any, key: Any) -> None:
    if isinstance(key, str) and key:
        index = random.randrange(len(key))
        holder[key[:index] + key[index + 1 :]] = holder.pop(key)


def _nudge(random: Random, holder: Any, key: Any) -> None:
    value = holder[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = random.choice([value + 1, value - 1, -value]) if isinstance(value, int) else value * 1.5
    elif isinstance(value, list):
        value.reverse()
    elif isinstance(value, str):
        holder[key] = value[1:] + chr(random.choice([random.randrange(0x20, 0x7F), random.randrange(0x110000)]))


def _copy(random: Random, holder: Any, key: Any) -> None:
    if isinstance(holder, list):
        holder.insert(key, deepcopy(holder[key]) if not isinstance(holder[key], list) else holder[key])
    else:
        holder[key] = [holder[key]]


_MUTATIONS: tuple[Mutation, ...] = (_replace, _replace, _delete, _add, _misspell, _nudge, _nudge, _copy)


def _truncate(random: Random, data: bytes) -> bytes:
    return data[: random.randint(0, len(data))]


def _overwrite(random: Random, data: bytes) -> bytes:
    index = random.randint(0, len(data))
    return data[:index] + random.randbytes(random.randint(0, 4)) + data[index + random.randint(0, 4) :]


def _change_character(random: Random, data: bytes) -> bytes:
    index = random.randint(0, len(data))
    return data[:index] + bytes([random.choice(b'0123456789-.eE",:[]{} tfn')]) + data[index + random.randint(0, 1) :]


_SPELLINGS = (
    b"1e400",
    b"-1e400",
    b"9" * 5000,
    b"NaN",
    b"-Infinity",
    b"1.0",
    b"1E0",
    b"-0",
    b"01",
    b"true",
    b"[" * 2000,
    b"[" * 900 + b"]" * 900,
    b'{"a":' * 500,
    b'"\\ud800"',
    b'"\\u0000"',
    b'{"steps": 1, "steps": 2}',
)


def _spell(random: Random, data: bytes) -> bytes:
    """Another value after one of the colons."""
    pieces = data.split(b": ")
    index = random.randrange(len(pieces))
    rest = pieces[index].partition(b",")
    pieces[index] = random.choice(_SPELLINGS) + rest[1] + rest[2]
    return b": ".join(pieces)


def _duplicate_key(random: Random, data: bytes) -> bytes:
    key = random.choice([b'"steps": 4, ', b'"cache": [], ', b'"format": "postdiff-policy", '])
    return data.replace(b"{", b"{" + key, 1)


def _encode_otherwise(random: Random, data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode(random.choice(["utf-8-sig", "utf-16", "utf-32", "utf-7"]))


_EDITS: tuple[Edit, ...] = (
    _truncate,
    _overwrite,
    _change_character,
    _change_character,
    _spell,
    _spell,
    _duplicate_key,
    _encode_otherwise,
)
_OVERSIZED: tuple[Callable[[], bytes], ...] = (
    lambda: b"x" * 10**7,
    lambda: b"[" * 10**6,
    lambda: b'{"a":' * 10**5,
    lambda: b" " * (MAX_BYTES + 1),
    lambda: b'{"format": "postdiff-policy", "version": 1, "steps": ' + b"1" * 10**6 + b"}",
    lambda: b"[" * MAX_BYTES,
)
