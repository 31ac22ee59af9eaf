"""Everything a search needs, resolved and checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autotune.core.errors import InputError
from autotune.core.faults import during
from autotune.core.fingerprint import digest
from autotune.core.interrupts import checkpoint
from autotune.cost import Budget, Cost, Pricer, load_profile, parse_bytes
from autotune.cost.profile.local import local_profile
from autotune.cost.profile.measure import OnProgress
from autotune.evaluation.content_fingerprint import content_fingerprint, weights_digest
from autotune.evaluation.evaluator import Pictures
from autotune.evaluation.exact_runs import LOOKS, pairs
from autotune.evaluation.examples import (
    SEEDS_APART,
    Examples,
    check_examples,
    choose,
    given_rows,
    held_out_rows,
    sides_of,
    usual_held_out,
)
from autotune.evaluation.generation import PictureMaker, picture_maker
from autotune.evaluation.inputs import Row, noun_of, plain, rows_of_prompts, say_different
from autotune.evaluation.intent import exact_policy, levels_in
from autotune.evaluation.judges import Judges, judges, panel_for
from autotune.evaluation.own_assets import own_judges, prompts_to_tune
from autotune.evaluation.second_opinion import judges_of_last_round, second_name
from autotune.models.shipped import demo_pipeline
from autotune.options import SetupOptions
from autotune.options.deployment import DeploymentOptions
from autotune.options.searching import Ranges
from autotune.pipelines.families import GenericFamily, check_tested, family_of
from autotune.policy import MAX_STEPS, Policy
from autotune.quality import Reference
from autotune.quality.judges import JUDGES as HUB
from autotune.quality.judges import fingerprint
from autotune.quality.panel import ALIGNMENT, DISTANCE, FIDELITY, Panel
from autotune.runtime import full_policy
from autotune.runtime.models import recommended
from autotune.runtime.prefix.checkpoints import PrefixCache
from autotune.search.proposer import Proposer
from autotune.search.recipes import PricedRecipe, recipes_at_budget
from autotune.search.samplers import LEARN_FROM_PRUNED, check_sampler
from autotune.search.sensitivity import Sensitivity, measure_sensitivity
from autotune.study.configuration import Configuration
from search_spaces import SearchSpace, engine_named, read_ranges, space_for
from search_spaces.denoiser import DenoiserSpace

# Prompts that tell how outputs change.
_WATCHED = 8


@dataclass(frozen=True)
class Setup:
    """A checked search, ready to run.

    Attributes:
        pricer: prices one picture, in FLOPs.
        deployed: prices a pipeline call in deployment, in time and memory.
        call_batch: pictures in such a call.
        references: by judge; where one is missing the full run's own pictures serve.
        second_opinion: the judge of the last round that the search does not ask, if there is one.
        last_judges: of the last round.
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
    references: Mapping[str, Reference]
    tuning: Examples
    held_out: Examples
    reference_seed: int
    configuration: Configuration
    second_opinion: str | None
    last_judges: Judges

    def sensitivity(self, units: Sequence[Sequence[str]]) -> Sensitivity:
        """How the outputs of units change along the full run, seen on a few of the tuning inputs."""
        rows, seeds = self.tuning.rows[:_WATCHED], self.tuning.seeds[:_WATCHED]
        return measure_sensitivity(replace(self.maker, prefixes=None), self.full, units, rows, seeds)

    def intent(self, policy: Policy) -> Policy:
        """The exact run that the policy's pictures are compared with in pairs."""
        return exact_policy(policy, self.full, levels=levels_in(self.pipe))

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
    pipe: Any | None, budgets: Sequence[Budget], options: SetupOptions, *, on_progress: OnProgress | None = None
) -> tuple[Setup, ...]:
    """Resolve defaults and check everything, for each budget.

    Args:
        pipe: A diffusers pipeline; None is the shipped model.
        budgets: What policies may cost.
        options: What the search is asked besides.
        on_progress: Told of what is done to profile this machine.

    Raises:
        InputError: something cannot be used.
    """
    check_sampler(options.sampler)
    memory = in_bytes(options.max_cache_memory)
    check_examples(options.images, options.seed, "images")
    if options.held_out_images is not None:
        check_examples(options.held_out_images, options.seed, "held_out_images")
    for name, value in (
        ("call_batch", options.call_batch or 1),
        ("steps", options.steps or 1),
        ("max_steps", options.max_steps or 1),
    ):
        if not 1 <= value <= MAX_STEPS:
            raise InputError(f"{name} is {value}; give a number from 1 to {MAX_STEPS}")
    own = given_rows(options.prompts, options.inputs)
    own_held_out = held_out_rows(options.held_out, as_inputs=options.inputs is not None)

    if pipe is None:
        pipe = demo_pipeline()
    check_tested(pipe)
    card = recommended(pipe)
    if own is None and (declared := prompts_to_tune(card)) is not None:
        prompts, unseen = declared
        own = rows_of_prompts(prompts)
        own_held_out = own_held_out or (None if unseen is None else rows_of_prompts(unseen))
    scorer, reference = own_judges(card, options, options.reference)
    options = replace(options, scorer=scorer, reference=reference)
    if own is None and family_of(pipe).conditioning == "prompt":
        raise InputError("a model of your own is tuned on prompts of your own; give prompts, a list or a file")
    taken, aside = sides_of(pipe, own, own_held_out)
    full = full_policy(pipe, options.steps)
    prefix_bytes = in_bytes(options.prefix_memory)
    maker = picture_maker(
        pipe,
        height=options.height,
        width=options.width,
        guidance_scale=options.guidance_scale,
        batch_size=options.batch_size,
        prefixes=PrefixCache(prefix_bytes) if prefix_bytes else None,
        inputs=taken,
    )
    maker.check(full)
    held_out_images = options.held_out_images or usual_held_out(aside.rows)
    tuning = choose(taken.rows, options.images, options.seed)
    last_round = choose(aside.rows, held_out_images, options.seed + SEEDS_APART)
    text = say_different(tuning.rows) and say_different(last_round.rows)
    panel_for(options, text=text)
    if taken.call or taken.noun != "prompts" or isinstance(family_of(pipe), GenericFamily):
        maker.try_out(full, tuning.rows[0])
    height, width, guided, priced = maker.height, maker.width, maker.guided, maker.priced
    pricer = Pricer(pipe, height, width, full_steps=full.steps, guided=guided, call=priced)
    engine = engine_named(options.space)
    searched = space_for(pipe, height=height, width=width, steps=full.steps, guided=guided, call=priced, engine=engine)
    if options.space is not None and engine is None:
        searched = searched.within(in_ranges(options.space))
    with during("while loading the scorer"):
        size, device = (height, width), str(pipe.device)
        chosen = judges(
            options, text=text, device=device, size=size, reference=options.reference, images=len(tuning.rows)
        )
    with during("while loading the second opinion"):
        second = second_name(options.second_opinion)
        last_judges = judges_of_last_round(chosen, second, device=device, size=size)
    deployed, call_batch = _deployed(pipe, pricer, searched, budgets, options, on_progress)

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

    reference_fingerprint = content_fingerprint(options.reference)
    assert full.model is not None, "full_policy records the model"
    # Cheap steps can be worth more of them than the full run has, up to a point.
    most_steps = options.max_steps or min(full.steps * 3 // 2, MAX_STEPS)
    configuration = Configuration(
        model=f"{full.model.denoiser} {full.model.denoiser_fingerprint}"
        f" with {full.model.scheduler} {full.model.scheduler_fingerprint}",
        weights=weights_digest(pipe),
        budget=str(budgets[0]),
        height=height,
        width=width,
        guidance_scale=maker.guidance_scale,
        full_steps=full.steps,
        max_steps=most_steps,
        images=options.images,
        held_out_images=held_out_images,
        batch_size=options.batch_size,
        seed=options.seed,
        prompts=digest([row.key for row in taken.rows or tuning.rows]),
        held_out=digest([row.key for row in aside.rows or last_round.rows]),
        reference=reference_fingerprint,
        scorer=chosen.scorer_fingerprint,
        network=chosen.network_fingerprint,
        distance=chosen.estimator,
        objective=tuple(chosen.panel.weight(name) for name in (DISTANCE, ALIGNMENT, FIDELITY)),
        target=None if deployed.target is None else deployed.target.digest,
        call_batch=call_batch if deployed.target is not None or memory is not None else None,
        max_memory=memory,
        knobs=tuple(f"{knob.name} {knob.low}..{knob.high}" for knob in searched.knobs),
        sampler=options.sampler,
        early_stopping=(
            options.sampler in LEARN_FROM_PRUNED if options.early_stopping is None else options.early_stopping
        ),
        call=plain(maker.call),
        judges=() if chosen.panel.classic is not None else tuple(map(_with_content, panel_texts(chosen.panel))),
        statistics=last_judges.beside_fingerprints(options.reference),
        exact=_exactly(chosen, len(tuning.rows)) if chosen.panel.errors else None,
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
        for each in budgets
    ]
    recipes = [recipes_at_budget(proposer) for proposer in proposers]
    with during("in the reference"):
        resolved = last_judges.references(options.reference, reference_fingerprint, (height, width))
    return tuple(
        Setup(
            maker=maker,
            model_name=model_name_of(pipe),
            budget=each,
            full=full,
            pricer=pricer,
            deployed=deployed,
            call_batch=call_batch,
            proposer=proposer,
            recipes=priced,
            judges=chosen,
            references=resolved,
            tuning=tuning,
            held_out=last_round,
            reference_seed=options.seed + 2 * SEEDS_APART,
            configuration=replace(configuration, budget=str(each)),
            second_opinion=second,
            last_judges=last_judges,
        )
        for each, proposer, priced in zip(budgets, proposers, recipes, strict=True)
    )


def panel_texts(panel: Panel) -> tuple[str, ...]:
    """A panel as options name it."""
    return panel.texts if panel.ceiling is None else (*panel.texts, f"--error-ceiling {panel.ceiling:g}")


def _exactly(judges: Judges, images: int) -> str:
    """How pictures are compared with exact runs', in words."""
    first, most = (pairs(made, images, judges.error_pictures) for made in (LOOKS[0], images))
    said = [f"{most} pictures", "guidance switched midway"]
    if first < most and images >= LOOKS[-1]:
        said.insert(1, f"{first} up to the look at {LOOKS[-1]}")
    return ", ".join([*said, *(f"{name} by regression" for name in judges.panel.regressed)])


def _with_content(text: str) -> str:
    """A judge of a panel as a study notes it: with what is in its files, where the Hub has them."""
    name = text.partition(":")[0]
    return f"{text}@{fingerprint(name).partition('@')[2]}" if name in HUB else text


def model_name_of(pipe: Any) -> str:
    """What a pipeline's model is called, for people: its folder, or the end of its hub id, or its class."""
    return Path(str(getattr(pipe, "config", {}).get("_name_or_path") or "")).name or type(pipe).__name__


def in_bytes(memory: str | int | None) -> int | None:
    """Memory in bytes, as a number or as a text such as 500MB.

    Raises:
        InputError: it is no amount of memory.
    """
    return parse_bytes(memory) if isinstance(memory, str) else memory


def in_ranges(space: Ranges) -> Mapping[str, tuple[int, int]]:
    """Ranges of knobs, which may be in a file.

    Raises:
        InputError: the file cannot be used.
    """
    return read_ranges(space) if isinstance(space, str | os.PathLike) else space


def _deployed(
    pipe: Any,
    pricer: Pricer,
    searched: SearchSpace,
    budgets: Sequence[Budget],
    options: DeploymentOptions,
    on_progress: OnProgress | None,
) -> tuple[Pricer, int]:
    """What prices calls in deployment, and how many pictures such a call makes.

    Without a target, a budget in time is meant for this machine, which is then measured at the sizes of the search.
    """
    call_batch = options.call_batch
    target = load_profile(options.target) if isinstance(options.target, str | os.PathLike) else options.target
    if target is None and any(budget.needs_latency for budget in budgets):
        with during("while profiling this machine"):
            scales = [float(scale) for scale in searched.asked_scales] if isinstance(searched, DenoiserSpace) else None
            target, _ = local_profile(pipe, pricer, [call_batch or 1], scales=scales, on_progress=on_progress)
    if target is None:
        return pricer, call_batch or 1
    call_batch = call_batch or min(times.batch for times in target.batches)
    target.of_batch(call_batch)
    return pricer.on(target), call_batch
