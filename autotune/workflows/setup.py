"""Everything a search needs, resolved and checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

from autotune.core.errors import InputError
from autotune.core.faults import during
from autotune.core.interrupts import checkpoint
from autotune.cost import Budget, Cost, Pricer, Profile, load_profile, parse_budget, parse_bytes
from autotune.cost.profile.local import local_profile
from autotune.cost.profile.measure import OnProgress
from autotune.evaluation.content_fingerprint import content_fingerprint, weights_digest
from autotune.evaluation.evaluator import Pictures
from autotune.evaluation.examples import (
    SEEDS_APART,
    Examples,
    Prompts,
    check_examples,
    choose,
    given_rows,
    held_out_rows,
    sides_of,
    usual_held_out,
)
from autotune.evaluation.generation import PictureMaker, picture_maker
from autotune.evaluation.inputs import AnyInputs, Row, noun_of, plain, rows_of_prompts, say_different
from autotune.evaluation.judges import (
    AnyNetwork,
    AnyReference,
    AnyScorer,
    Judges,
    judges,
    objective_weights,
    shipped_judges,
)
from autotune.pipelines.families import family_of
from autotune.policy import MAX_STEPS, Policy
from autotune.quality import Reference
from autotune.runtime import full_policy
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.search.proposer import Proposer
from autotune.search.recipes import PricedRecipe, recipes_at_budget
from autotune.search.samplers import DEFAULT as DEFAULT_SAMPLER
from autotune.search.samplers import LEARN_FROM_PRUNED, check_sampler
from autotune.search.sensitivity import Sensitivity, measure_sensitivity
from autotune.study.trials import Configuration, digest
from search_spaces import read_ranges, space_for

DEMO = "emoji-unet"

Ranges = Mapping[str, tuple[int, int]] | str | os.PathLike[str]

PREFIX_MEMORY = "1GB"
"""For what calls begin with; states of one call take megabytes."""

# Prompts that tell how outputs change.
_WATCHED = 8


@dataclass(frozen=True)
class Setup:
    """A checked search, ready to run.

    Attributes:
        pricer: prices one picture, in FLOPs.
        deployed: prices a pipeline call in deployment, in time and memory.
        call_batch: pictures in such a call.
        reference: None where the full run's own pictures serve as one.
    """

    maker: PictureMaker
    model_name: str
    budget: Budget
    full: Policy
    pricer: Pricer
    deployed: Pricer
    call_batch: int
    proposer: Proposer
    recipes: tuple[PricedRecipe, ...]
    judges: Judges
    reference: Reference | None
    tuning: Examples
    held_out: Examples
    reference_seed: int
    configuration: Configuration

    def sensitivity(self, units: Sequence[Sequence[str]]) -> Sensitivity:
        """How the outputs of units change along the full run, seen on a few of the tuning inputs."""
        rows, seeds = self.tuning.rows[:_WATCHED], self.tuning.seeds[:_WATCHED]
        return measure_sensitivity(replace(self.maker, prefixes=None), self.full, units, rows, seeds)

    @property
    def noun(self) -> str:
        """What the inputs are, for people."""
        return noun_of(self.tuning.rows)

    @property
    def pipe(self) -> Any:
        """The pipeline that is tuned."""
        return self.maker.pipe

    def pictures(
        self,
        policy: Policy,
        rows: Sequence[Row],
        seeds: Sequence[int],
        on_batch: Callable[[int], None] | None = None,
    ) -> Pictures:
        """Pictures (n, 3, H, W) uint8 under ``policy`` in batches, as every part of the search makes them."""

        def after_batch(made: int) -> None:
            checkpoint()
            if on_batch is not None:
                on_batch(made)

        return self.maker.pictures(policy, rows, seeds, after_batch)


def prepare(
    pipe: Any | None,
    budgets: Sequence[str],
    *,
    images: int,
    held_out_images: int | None,
    batch_size: int,
    seed: int,
    prompts: Prompts | None = None,
    inputs: AnyInputs | None = None,
    held_out: Prompts | AnyInputs | None = None,
    reference: AnyReference | None = None,
    scorer: AnyScorer | None = None,
    height: int | None = None,
    width: int | None = None,
    guidance_scale: float | None = None,
    steps: int | None = None,
    max_steps: int | None = None,
    network: AnyNetwork | None = None,
    objective: str = "quality",
    distance: str | None = None,
    weight_fd: float | None = None,
    weight_clip: float | None = None,
    space: Ranges | None = None,
    target: Profile | str | os.PathLike[str] | None = None,
    call_batch: int | None = None,
    max_cache_memory: str | int | None = None,
    sampler: str = DEFAULT_SAMPLER,
    early_stopping: bool | None = None,
    prefix_memory: str | int = PREFIX_MEMORY,
    on_progress: OnProgress | None = None,
) -> tuple[Setup, ...]:
    """Resolve defaults and check everything, for each budget; arguments as of :func:`autotune.workflows.tune.tune`.

    Raises:
        InputError: something cannot be used.
    """
    parsed = [parse_budget(budget) for budget in budgets]
    check_sampler(sampler)
    memory = parse_bytes(max_cache_memory) if isinstance(max_cache_memory, str) else max_cache_memory
    target = load_profile(target) if isinstance(target, str | os.PathLike) else target
    check_examples(images, seed, "images")
    if held_out_images is not None:
        check_examples(held_out_images, seed, "held_out_images")
    for name, value in (
        ("call_batch", call_batch or 1),
        ("steps", steps or 1),
        ("max_steps", max_steps or 1),
    ):
        if not 1 <= value <= MAX_STEPS:
            raise InputError(f"{name} is {value}; give a number from 1 to {MAX_STEPS}")
    objective_weights(objective, weight_fd, weight_clip)
    own = given_rows(prompts, inputs)
    own_held_out = held_out_rows(held_out, as_inputs=inputs is not None)

    if pipe is None:
        from autotune.models.shipped import demo_assets, demo_pipeline

        assets = demo_assets(DEMO)
        pipe, model_name = demo_pipeline(DEMO), DEMO
        steps = steps or assets.full_steps
        guidance_scale = assets.guidance_scale if guidance_scale is None else guidance_scale
        if own is None:
            captions, unseen = assets.search_prompts()
            own, own_held_out = rows_of_prompts(captions), own_held_out or rows_of_prompts(unseen)
        scorer, reference = shipped_judges(DEMO, scorer, network, reference)
    else:
        model_name = Path(str(getattr(pipe, "config", {}).get("_name_or_path") or "")).name or type(pipe).__name__
    if own is None and family_of(pipe).conditioning == "prompt":
        raise InputError("a model of your own is tuned on prompts of your own; give prompts, a list or a file")
    taken, aside = sides_of(pipe, own, own_held_out)
    full = full_policy(pipe, steps)
    prefix_bytes = parse_bytes(prefix_memory) if isinstance(prefix_memory, str) else prefix_memory
    maker = picture_maker(
        pipe,
        height=height,
        width=width,
        guidance_scale=guidance_scale,
        batch_size=batch_size,
        prefixes=PrefixCache(prefix_bytes) if prefix_bytes else None,
        inputs=taken,
    )
    maker.check(full)
    held_out_images = held_out_images or usual_held_out(aside.rows)
    tuning = choose(taken.rows, images, seed)
    last_round = choose(aside.rows, held_out_images, seed + SEEDS_APART)
    text = say_different(tuning.rows) and say_different(last_round.rows)
    objective_weights(objective, weight_fd, weight_clip, text=text)
    if taken.call or taken.noun != "prompts":
        maker.try_out(full, tuning.rows[0])
    height, width, guided, priced = maker.height, maker.width, maker.guided, maker.priced
    pricer = Pricer(pipe, height, width, full_steps=full.steps, guided=guided, call=priced)
    searched = space_for(pipe, height=height, width=width, steps=full.steps, guided=guided, call=priced)
    if space is not None:
        searched = searched.within(read_ranges(space) if isinstance(space, str | os.PathLike) else space)
    deployed, call_batch = _deployed(pipe, pricer, parsed, target, call_batch, on_progress)

    def price(policy: Policy) -> Cost:
        """FLOPs of one picture; time and memory of a call in deployment."""
        call = deployed.price(policy, call_batch)
        return replace(
            pricer.price(policy),
            latency_ms=call.latency_ms,
            cache_bytes=call.cache_bytes,
            latent_bytes=call.latent_bytes,
        )

    def executed(policy: Policy) -> str:
        """The plan alone says nothing of noise levels."""
        levels = policy.model_dump(mode="json", include={"scheduler", "timesteps", "sigmas"})
        return digest([pricer.plan(policy).digest, levels])

    with during("while loading the scorer"):
        chosen = judges(
            scorer,
            network,
            objective=objective,
            distance=distance,
            weight_fd=weight_fd,
            weight_clip=weight_clip,
            text=text,
            device=str(pipe.device),
        )
    reference_fingerprint = content_fingerprint(reference)
    assert full.model is not None, "full_policy records the model"
    # Cheap steps can be worth more of them than the full run has, up to a point.
    most_steps = max_steps or min(full.steps * 3 // 2, MAX_STEPS)
    configuration = Configuration(
        model=f"{full.model.denoiser} {full.model.denoiser_fingerprint}"
        f" with {full.model.scheduler} {full.model.scheduler_fingerprint}",
        weights=weights_digest(pipe),
        budget=str(parsed[0]),
        height=height,
        width=width,
        guidance_scale=maker.guidance_scale,
        full_steps=full.steps,
        max_steps=most_steps,
        images=images,
        held_out_images=held_out_images,
        batch_size=batch_size,
        seed=seed,
        prompts=digest([row.key for row in taken.rows or tuning.rows]),
        held_out=digest([row.key for row in aside.rows or last_round.rows]),
        reference=reference_fingerprint,
        scorer=chosen.scorer_fingerprint,
        network=chosen.network_fingerprint,
        distance=chosen.estimator,
        objective=astuple(chosen.weights),
        target=None if deployed.target is None else deployed.target.digest,
        call_batch=call_batch if deployed.target is not None or memory is not None else None,
        max_memory=memory,
        knobs=tuple(f"{knob.name} {knob.low}..{knob.high}" for knob in searched.knobs),
        sampler=sampler,
        early_stopping=sampler in LEARN_FROM_PRUNED if early_stopping is None else early_stopping,
        call=plain(maker.call),
    )
    full_price = price(full)
    proposers = [
        Proposer(
            searched,
            price,
            each.limits(full_price, memory),
            most_steps,
            full.model,
            executed,
            fewest=maker.fewest_steps,
        )
        for each in parsed
    ]
    recipes = [recipes_at_budget(proposer) for proposer in proposers]
    with during("in the reference"):
        resolved = chosen.reference(reference, reference_fingerprint, (height, width))
    return tuple(
        Setup(
            maker=maker,
            model_name=model_name,
            budget=each,
            full=full,
            pricer=pricer,
            deployed=deployed,
            call_batch=call_batch,
            proposer=proposer,
            recipes=priced,
            judges=chosen,
            reference=resolved,
            tuning=tuning,
            held_out=last_round,
            reference_seed=seed + 2 * SEEDS_APART,
            configuration=replace(configuration, budget=str(each)),
        )
        for each, proposer, priced in zip(parsed, proposers, recipes, strict=True)
    )


def _deployed(
    pipe: Any,
    pricer: Pricer,
    budgets: Sequence[Budget],
    target: Profile | None,
    call_batch: int | None,
    on_progress: OnProgress | None,
) -> tuple[Pricer, int]:
    """What prices calls in deployment, and how many pictures such a call makes.

    Without a target, a budget in time is meant for this machine, which is then measured.
    """
    if target is None and any(budget.needs_latency for budget in budgets):
        with during("while profiling this machine"):
            target, _ = local_profile(pipe, pricer, [call_batch or 1], on_progress=on_progress)
    if target is None:
        return pricer, call_batch or 1
    call_batch = call_batch or min(times.batch for times in target.batches)
    target.of_batch(call_batch)
    return pricer.on(target), call_batch
