"""Policies and the full run side by side, on the same prompts and from the same noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, ParamSpec, Protocol

import autotune
from autotune.core.errors import InputError, Unavailable, out_of_space
from autotune.core.faults import during
from autotune.core.interrupts import Interrupted, checkpoint, deferred
from autotune.core.naming import FULL_RUN, default_comparison_name
from autotune.cost import Cost, Pricer
from autotune.cost.profile.environment import describe_device, versions
from autotune.evaluation.accepted_inputs import accepted
from autotune.evaluation.batches import Batches, Noted
from autotune.evaluation.content_fingerprint import content_fingerprint, weights_digest
from autotune.evaluation.examples import SEEDS_APART, Examples, check_examples, choose, given_rows
from autotune.evaluation.generation import PictureMaker, picture_maker
from autotune.evaluation.inputs import plain, rows_of_prompts, say_different
from autotune.evaluation.judges import Judges, judges, panel_for
from autotune.evaluation.own_assets import own_judges, prompts_to_compare
from autotune.models.shipped import demo_pipeline
from autotune.options import CompareOptions
from autotune.options.declare import with_keywords
from autotune.pipelines.bars import without_bars
from autotune.pipelines.families import check_tested, family_of
from autotune.policy import Policy
from autotune.quality import Evaluation, Objective, Reference
from autotune.quality.lpips import LEAST_SIDE, Lpips
from autotune.quality.panel import DISTANCE
from autotune.quality.verdict import LEAST_PROMPTS
from autotune.results.comparison import FILE, LEVEL, ComparedRun, Comparison, Conditions, Pair, pair, same_pair
from autotune.results.finalists import quality_record
from autotune.results.gallery import shown_pictures
from autotune.runtime import full_policy
from autotune.runtime.models import recommended
from autotune.workflows.progress import Progress
from autotune.workflows.undo import beyond_refusal, make_run_folder, undone_if_refused

P = ParamSpec("P")

# What SSIM's window needs.
_LEAST_SIDE = 11


class _Compare(Protocol[P]):
    """:func:`compare` with the keywords of :class:`autotune.options.CompareOptions`."""

    def __call__(
        self, pipe: Any | None, policies: Mapping[str, Policy], *args: P.args, **options: P.kwargs
    ) -> Comparison: ...


def _with(declaration: Callable[P, CompareOptions]) -> Callable[[Callable[..., Comparison]], _Compare[P]]:
    """Have a function take its options as keywords, which type checkers know from their declaration."""

    def decorate(function: Callable[..., Comparison]) -> _Compare[P]:
        return with_keywords(function, CompareOptions)

    return decorate


@_with(CompareOptions)
def compare(pipe: Any | None, policies: Mapping[str, Policy], *, options: CompareOptions) -> Comparison:
    """Evaluate policies beside the full run: every score with its interval, and every two policies against each other.

    All runs make pictures of the same prompts from the same noise, batch by batch; of a batch only features and
    the like are kept, in ``run_dir``, so that memory does not grow with ``images``. The same call again goes on
    where it was interrupted and ends with the same numbers. In the same ``run_dir`` another objective or reference
    makes no picture again, and a further policy its own and the full run's. Seeds are such as :func:`autotune.tune`
    never uses: a policy has no advantage from pictures that it was chosen by. Everything is checked before the first
    file is written.

    Scorers and networks that are objects are known by their class: give other ones another ``run_dir``.

    Where an option names a file, Python takes what is in it as well, as :func:`autotune.tune` does.

    Args:
        pipe: A diffusers pipeline; None is the shipped ``emoji-unet``.
        policies: What to compare, by names to call them. One that runs the same as an earlier one or as the full
            run makes no pictures of its own.
        options: As keywords, see below and :class:`autotune.options.CompareOptions`. A random choice of the inputs is
            pictured, or all of them equally often, which may make it some more pictures. Where pictures were compared
            without LPIPS before, or with another backbone, they are made again.

    Raises:
        InputError: an argument cannot be used; nothing was written.
        RunFailed: a policy makes pictures with NaN or infinity, or scorer and reference cannot judge these pictures;
            what is done stays.
        Interrupted: Ctrl-C; the same call goes on.

    Example:
        >>> policies = {"mine": autotune.Policy(steps=9), "two steps": autotune.Policy(steps=2)}
        >>> comparison = autotune.compare(pipe, policies, prompts=prompts, scorer=scorer, images=12, quiet=True)
        >>> comparison.sentences
        ('mine is better than two steps: its loss differs by -... (95 % interval -... to -...).',)
    """
    return compare_policies(pipe, policies, options)


def compare_policies(pipe: Any | None, policies: Mapping[str, Policy], options: CompareOptions) -> Comparison:
    """:func:`compare` with all options at once."""
    _check_policies(policies)
    check_examples(options.images, options.seed, "images")
    own = given_rows(options.prompts, options.inputs)
    perceptual = Lpips(options.lpips) if isinstance(options.lpips, str) else options.lpips
    if pipe is None:
        pipe = demo_pipeline()
    check_tested(pipe)
    card = recommended(pipe)
    if own is None and (declared := prompts_to_compare(card)) is not None:
        own = rows_of_prompts(declared)
    scorer, reference = own_judges(card, options, options.reference)
    options = replace(options, scorer=scorer, reference=reference)
    if own is None and family_of(pipe).conditioning == "prompt":
        raise InputError("policies for a model of your own are compared on prompts of your own; give prompts")
    taken = accepted(pipe, own)
    full = full_policy(pipe, options.steps or _full_steps(policies))
    maker = picture_maker(
        pipe,
        height=options.height,
        width=options.width,
        guidance_scale=options.guidance_scale,
        batch_size=options.batch_size,
        inputs=taken,
    )
    if min(maker.height, maker.width) < _LEAST_SIDE:
        raise InputError(
            f"pictures of {maker.height} x {maker.width} pixels are too small for SSIM; make them {_LEAST_SIDE} a side"
        )
    if perceptual is not None and min(maker.height, maker.width) < LEAST_SIDE:
        raise InputError(
            f"pictures of {maker.height} x {maker.width} pixels are too small for LPIPS; make them {LEAST_SIDE} a side"
        )
    maker.check(full)
    examples = choose(taken.rows, options.images, options.seed + 3 * SEEDS_APART)
    if len({row.key for row in examples.rows}) < 2:
        raise InputError("one input says nothing of others, and intervals are taken over inputs; give two or more")
    text = say_different(examples.rows)
    panel_for(options, text=text)
    if taken.call or taken.noun != "prompts":
        maker.try_out(full, examples.rows[0])
    costs = _prices(maker, full, policies)
    with during("while loading the scorer"):
        size = (maker.height, maker.width)
        chosen = judges(
            options,
            text=text,
            device=str(pipe.device),
            size=size,
            reference=options.reference,
            images=len(examples.rows),
        )
    fingerprint = content_fingerprint(options.reference)
    with during("in the reference"):
        resolved = chosen.references(options.reference, fingerprint, size)
    if DISTANCE in resolved:
        chosen.check(resolved[DISTANCE], size)
    assert full.model is not None, "full_policy records the model"
    conditions = Conditions(
        model=full.model,
        weights_digest=weights_digest(pipe),
        height=maker.height,
        width=maker.width,
        guidance_scale=maker.guidance_scale,
        batch_size=options.batch_size,
        prompts=len({row.key for row in examples.rows}),
        images=len(examples.rows),
        seed=options.seed,
        first_seed=examples.seeds[0],
        scorer=chosen.scorer_fingerprint,
        network=chosen.network_fingerprint,
        lpips=None if perceptual is None else perceptual.backbone,
        reference=fingerprint,
        estimator=chosen.estimator,
        weights=dict(chosen.panel.weights),
        device=describe_device(pipe.device).title,
        versions={"postdiff": autotune.__version__, **versions()},
        noun=taken.noun,
        call=plain(maker.call),
    )
    folder = Path(options.run_dir) if options.run_dir is not None else Path("runs") / default_comparison_name(policies)
    if perceptual is not None:
        perceptual.to(pipe.device)
    with undone_if_refused() as undo:
        make_run_folder(folder, undo)
    task = _Task(conditions, maker, chosen, perceptual, resolved, full, policies, costs, examples, folder)
    try:
        with (
            beyond_refusal(),
            during("in the comparison"),
            without_bars(pipe),
            deferred(),
            Progress(quiet=options.quiet) as progress,
        ):
            comparison = task.run(progress)
    except KeyboardInterrupt:
        raise Interrupted(folder) from None
    except OSError as error:
        if not out_of_space(error):
            raise
        raise Unavailable(
            f"{folder} cannot be written to ({error.strerror}); make room, then repeat the same command to go on"
        ) from error
    with during(f"while writing {FILE}"):
        comparison.save(folder / FILE)
    return comparison


@dataclass(frozen=True)
class _Task:
    """A checked comparison, ready to run."""

    conditions: Conditions
    maker: PictureMaker
    judges: Judges
    lpips: Lpips | None
    references: Mapping[str, Reference]
    full: Policy
    policies: Mapping[str, Policy]
    costs: Mapping[str, Cost]
    examples: Examples
    folder: Path

    def run(self, progress: Progress) -> Comparison:
        """Make, judge and compare."""
        same_as, different = _distinct(self.full, self.policies)
        folder = self.folder / "batches"
        batches = Batches(self.maker, self.judges, self.full, folder, self._settings(), progress, self.lpips)
        references = dict(self.references)
        own = {name: network for name, network in self.judges.referring.items() if name not in references}
        if own:
            different_rows = tuple({row.key: row for row in self.examples.rows}.values())
            with during("in the reference"):
                references |= batches.own_references(own, different_rows, self.conditions.seed + 2 * SEEDS_APART)
        text = self.judges.text_features(self.examples.rows)
        noted = batches.run(different, self.examples, text)
        checkpoint()
        progress.stage("intervals")
        progress.pictures(len(self.examples.rows) * len(noted))
        full = noted[FULL_RUN]
        if DISTANCE not in references:
            references[DISTANCE] = Reference.of(full.judged.features, shrink=True)
        baseline = full.judged.baseline(text, [row.key for row in self.examples.rows])
        objective = Objective(
            references[DISTANCE],
            baseline,
            distance=self.judges.estimator,
            weights=self.judges.panel,
            references=references,
        )
        first = {name: same_as.get(name, name) for name in (FULL_RUN, *self.policies)}
        runs = {
            name: _run(name, policy, self.costs[name], noted[first[name]], objective, same_as.get(name))
            for name, policy in {FULL_RUN: self.full, **self.policies}.items()
        }
        shown = self.examples.rows[: len(full.preview)]
        evaluations = {name: each.judged.evaluation for name, each in noted.items()}
        return Comparison(
            conditions=self.conditions,
            full=runs[FULL_RUN],
            runs=tuple(runs[name] for name in self.policies),
            pairs=tuple(
                _pair(objective, (a, b), (evaluations[first[a]], evaluations[first[b]]), same=first[a] == first[b])
                for a, b in combinations(self.policies, 2)
            ),
            preview_prompts=tuple(row.label for row in shown),
            preview_inputs=shown_pictures(shown, self.maker.size),
            previews=tuple(noted[first[name]].preview for name in runs),
            run_dir=self.folder,
            notes=tuple(_notes(runs, self.conditions.guidance_scale)),
        )

    def _settings(self) -> dict[str, Any]:
        """What decides the notes on a batch, besides policy, prompts and seeds."""
        shared = self.conditions.to_dict()
        pictures = ("model", "weights_digest", "height", "width", "guidance_scale", "device", "versions")
        decides = {name: shared[name] for name in (*pictures, "scorer", "network")} | {"full": self.full.key}
        return decides | {"call": shared["call"]} if shared["call"] else decides


def _check_policies(policies: Mapping[str, Policy]) -> None:
    if not policies:
        raise InputError("there is no policy to compare; give one or more")
    for name in policies:
        if not name.strip() or name == FULL_RUN:
            raise InputError(f"a policy cannot be called {name!r}; give it another name")


def _full_steps(policies: Mapping[str, Policy]) -> int | None:
    """Steps of the full run that the policies were made against, if they say."""
    said = {name: policy.model.full_steps for name, policy in policies.items() if policy.model is not None}
    if len(set(said.values())) > 1:
        listed = ", ".join(f"{name}: {steps}" for name, steps in said.items())
        raise InputError(f"the policies were made against full runs of different steps ({listed}); give steps")
    return next(iter(said.values()), None)


def _prices(maker: PictureMaker, full: Policy, policies: Mapping[str, Policy]) -> dict[str, Cost]:
    """The exact price of every run, relative to this full run, whatever the policies were made against.

    Raises:
        InputError: a policy does not fit the pipeline.
    """
    pricer = Pricer(
        maker.pipe, maker.height, maker.width, full_steps=full.steps, guided=maker.guided, call=maker.priced
    )
    prices = {FULL_RUN: pricer.price(full)}
    for name, policy in policies.items():
        try:
            maker.check(policy)
            prices[name] = pricer.price(policy.model_copy(update={"model": full.model}))
        except InputError as error:
            raise InputError(f"policy {name}: {error}") from error
    return prices


def _distinct(full: Policy, policies: Mapping[str, Policy]) -> tuple[dict[str, str], dict[str, Policy]]:
    """The earlier run that a repetition repeats, by name, and the policies without repetitions."""
    first = {full.key: FULL_RUN}
    for name, policy in policies.items():
        first.setdefault(policy.key, name)
    same_as = {name: first[policy.key] for name, policy in policies.items() if first[policy.key] != name}
    return same_as, {name: policy for name, policy in policies.items() if name not in same_as}


def _run(name: str, policy: Policy, cost: Cost, noted: Noted, objective: Objective, same_as: str | None) -> ComparedRun:
    return ComparedRun(
        name=name,
        id=policy.id,
        same_as=same_as,
        steps=policy.steps,
        cost=cost,
        **dict(quality_record(objective.interval(noted.judged.evaluation, level=LEVEL))),
        psnr=objective.mean(noted.psnr, level=LEVEL).rounded(),
        ssim=objective.mean(noted.ssim, level=LEVEL).rounded(),
        lpips=None if noted.lpips is None else objective.mean(noted.lpips, level=LEVEL).rounded(),
        identical=round(float(noted.identical.double().mean()), 6),
        policy=policy,
    )


def _pair(objective: Objective, names: tuple[str, str], evaluations: Sequence[Evaluation], *, same: bool) -> Pair:
    if same:
        return same_pair(*names)
    one, other = evaluations
    found = objective.verdict([one], other, level=LEVEL)
    return pair(*names, found.difference.rounded(), needed=None if found.enough else LEAST_PROMPTS)


def _notes(runs: Mapping[str, ComparedRun], guidance_scale: float | None) -> list[str]:
    notes = []
    for name, run in runs.items():
        if run.same_as is not None:
            notes.append(f"{name} runs the same as {run.same_as}; its pictures were made once")
        tuned = run.policy.quality.guidance_scale if run.policy.quality else None
        if None not in (tuned, guidance_scale) and tuned != guidance_scale:
            notes.append(f"{name} was tuned at guidance scale {tuned:g} and is compared at {guidance_scale:g}")
    return notes
