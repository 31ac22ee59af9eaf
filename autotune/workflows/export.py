"""The winner of a search as the policy that is written to disk."""

from __future__ import annotations

import datetime
from importlib.metadata import version

import optuna

import autotune
from autotune.cost.profile.environment import describe_device
from autotune.cost.releases import versions
from autotune.policy import Policy, PolicyCost, PredictedTime, Provenance, lowest_version
from autotune.results.finalists import Finalists
from autotune.workflows.setup import Setup

# Predictions of time are meant to hold within five percent.
_TOLERATED = 1.05


def exported(setup: Setup, study: optuna.Study, finalists: Finalists) -> Policy:
    """The winner with all its records, validated as a whole."""
    winner = finalists.winner
    cost = PolicyCost(
        flops=winner.cost.flops,
        macs_conv_linear=winner.cost.macs_conv_linear,
        relative=winner.cost.relative,
        cache_bytes=winner.cost.cache_bytes,
        predicted=_predicted(setup, winner.policy),
        measured=(winner.time,) if winner.time else (),
    )
    provenance = Provenance(
        study=(winner.study or study.study_name)[:200],
        trial=winner.trial,
        seed=setup.configuration.seed,
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        versions={
            "postdiff": autotune.__version__,
            **{package: version(package) for package in ("torch", "diffusers", "optuna")},
        },
    )
    quality = finalists.quality(setup.judges, setup.configuration.guidance_scale)
    records = {
        "version": lowest_version(quality, winner.policy.cache, winner.policy.guidance),
        "budget": str(setup.budget) if finalists.floor is None else finalists.floor.budget,
        "cost": cost,
        "quality": quality,
        "provenance": provenance,
    }
    return Policy(**{**dict(winner.policy), **records})


def _predicted(setup: Setup, policy: Policy) -> tuple[PredictedTime, ...]:
    """The time of a call in deployment, where the search knew of a target."""
    profile = setup.deployed.target
    if profile is None:
        return ()
    times = [setup.deployed.price(each, setup.call_batch).latency_ms for each in (policy, setup.full)]
    milliseconds, full = (ms for ms in times if ms is not None)
    return (
        PredictedTime(
            device=profile.device.title[:200],
            dtype=profile.dtype,
            compile=profile.compile,
            batch_size=setup.call_batch,
            ms=round(milliseconds, 3),
            relative=round(milliseconds / full, 4),
            profile=profile.date,
        ),
    )


def notes(setup: Setup, policy: Policy) -> tuple[str, ...]:
    """Why a bound on time may not be kept in deployment."""
    profile, limit = setup.deployed.target, setup.proposer.limits.latency_ms
    if profile is None or limit is None:
        return ()
    found = profile.doubts(dtype=str(setup.pipe.dtype).removeprefix("torch."), versions=versions())
    here = describe_device(setup.pipe.device)
    for time_taken in policy.cost.measured if policy.cost else ():
        taken = time_taken.ms_per_image * time_taken.batch_size
        comparable = here.title == profile.device.title and time_taken.batch_size == setup.call_batch
        if comparable and taken > _TOLERATED * limit:
            found.append(
                f"calls of {time_taken.batch_size} took {taken:.0f} ms and the budget is {limit:.0f} ms: the machine is"
                " slower now than when it was profiled; profile it again and give the file as --target"
            )
    return tuple(found)
