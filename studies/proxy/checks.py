"""Can the objective be fooled, does it cry wolf, and what does it cost?

``python -m studies.proxy.checks`` prints for each shipped model:

- ladders: the loss of 128 full-run pictures spoiled in ten ways, each in five strengths; it must rise strictly. Four of
  the ways are fine: grain of 1 to 8 grey levels, blur of half a pixel, blocks of 8x8, lost parts of 6x6 pixels;
- policies and pictures that fool other measures; every loss must be above zero with confidence: no guidance (washed
  out), four steps, one style for all (fewer modes), one picture for all, far too much guidance (prompts shouted), pale
  pictures, layers reused in most steps. The lower bound is the sum of the terms' 95 % lower bounds, below that of the
  sum;
- the full run against itself with other seeds, 100 times: how many 95 % intervals of its loss hold zero (at least 90
  must), and of its paired comparison;
- the share of a candidate's evaluation that scoring takes (at most a tenth).
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from autotune.cost import Pricer
from autotune.evaluation.pictures import generate
from autotune.models.shipped import DEMO_NAMES, DemoAssets, demo_assets, demo_pipeline
from autotune.policy import CacheRule, Guidance, Policy
from autotune.quality import Baseline, Evaluation, Objective, Reference, Scorer, coarse, shuffled_alignment
from autotune.quality.bootstrap import interval
from autotune.quality.fidelity import feature_distances
from autotune.quality.wavelets import drift, textures
from autotune.runtime import applied
from studies.proxy.exact import exact_run
from studies.proxy.judges import CEILING
from studies.proxy.spoiling import FINE_LADDERS, LADDERS, faded

PICTURES = 128
REPEATS = 100
REPEATED = 64
RESAMPLES = 1000
SETS = 12
_SEED = 10**8
_SHOUTING = 12.0


@dataclass
class Subject:
    """A shipped model and its judge."""

    pipe: Any
    assets: DemoAssets
    scorer: Scorer

    @staticmethod
    def of(name: str) -> Subject:
        pipe, assets = demo_pipeline(name), demo_assets(name)
        pipe.set_progress_bar_config(disable=True)
        return Subject(pipe, assets, Scorer(assets.scorer_dir))

    @property
    def full(self) -> Policy:
        return Policy(steps=self.assets.full_steps)

    def prompts(self, count: int) -> list[str]:
        every = len(self.assets.tuning_prompts) // count
        return self.assets.tuning_prompts[::every][:count]

    def pictures(self, policy: Policy, prompts: list[str], first_seed: int, guidance: float | None = None) -> Tensor:
        scale = self.assets.guidance_scale if guidance is None else guidance
        seeds = range(first_seed, first_seed + len(prompts))
        with applied(self.pipe, policy):
            return generate(self.pipe, prompts, seeds, guidance_scale=scale, batch_size=32)

    def evaluation(self, pictures: Tensor, prompts: list[str]) -> Evaluation:
        return Evaluation.of(self.scorer.image_features(pictures), self.scorer.text_features(prompts))

    def objective(self, pictures: Tensor, prompts: list[str]) -> Objective:
        full = self.evaluation(pictures, prompts)
        chance = shuffled_alignment(full.features, self.scorer.text_features(prompts))
        baseline = Baseline(full, self.scorer.image_features(coarse(pictures)), chance, tuple(prompts))
        return Objective(Reference.load(self.assets.reference), baseline)


@dataclass(frozen=True, eq=False)
class Judgement:
    """The new default's terms of pictures, (N, ...) for N of them; see :mod:`studies.proxy.judges`.

    Attributes:
        evaluation: Of distance and alignment.
        errors: (N,) in CLIP's features, to the exact run's pictures; the mean of the full run's coarse pictures is 1.
        changes: (N, 27) of textures, in the unit of the drift.
    """

    evaluation: Evaluation
    errors: Tensor
    changes: Tensor

    def loss(self, objective: Objective) -> float:
        return self._sum(objective.score(self.evaluation).loss, _all_rows(len(self.errors)))

    def lower_bound(self, objective: Objective) -> float:
        draw = torch.Generator().manual_seed(0)
        rows = torch.randint(len(self.errors), (RESAMPLES, len(self.errors)), generator=draw)
        drifted = self._low(lambda at: drift(self.changes, at), rows)
        error = self._low(lambda at: self.errors[at].mean(1), rows)
        return objective.interval(self.evaluation).loss.low + 2 * drifted + min(error, CEILING)

    def _low(self, of_rows: Callable[[Tensor], Tensor], rows: Tensor) -> float:
        return interval(float(of_rows(_all_rows(len(self.errors)))), of_rows(rows), 0.95).low

    def _sum(self, intent: float, rows: Tensor) -> float:
        error = float(self.errors[rows].mean(1))
        return intent + 2 * float(drift(self.changes, rows)) + min(error, CEILING)


class Judges:
    """Pictures by the new default, against exact pictures of the same prompts and seeds."""

    def __init__(self, subject: Subject, pictures: Tensor, prompts: list[str]) -> None:
        self._subject, self._prompts = subject, prompts
        self.objective = subject.objective(pictures, prompts)
        spoiled, rows = coarse(pictures), _all_rows(len(pictures))
        self._error_unit = float(self._errors(spoiled, pictures).mean())
        self._drift_unit = float(drift(textures(spoiled) - textures(pictures), rows))

    def judgement(self, pictures: Tensor, exact: Tensor) -> Judgement:
        return Judgement(
            self._subject.evaluation(pictures, self._prompts),
            self._errors(pictures, exact) / self._error_unit,
            (textures(pictures) - textures(exact)).double() / self._drift_unit,
        )

    def _errors(self, pictures: Tensor, exact: Tensor) -> Tensor:
        return feature_distances(*(self._subject.scorer.image_features(each) for each in (pictures, exact)))


def _all_rows(count: int) -> Tensor:
    return torch.arange(count)[None]


def ladders(judges: Judges, pictures: Tensor) -> Table:
    table = Table("ladder", *(f"strength {index}" for index in range(1, 6)), "rises", title="loss along the ladders")
    for name, (spoil, strengths) in {**LADDERS, **FINE_LADDERS}.items():
        spoiled = (spoil(pictures, strength) for strength in strengths)
        losses = [judges.judgement(each, pictures).loss(judges.objective) for each in spoiled]
        rises = all(low < high for low, high in itertools.pairwise((0.0, *losses)))
        cells = (f"{loss:.3f} at {strength:g}" for loss, strength in zip(losses, strengths, strict=True))
        table.add_row(name, *cells, "yes" if rises else "NO")
    return table


def adversaries(subject: Subject, judges: Judges, pictures: Tensor, prompts: list[str]) -> Table:
    columns = ("adversary", "loss", "lower bound", "distance and alignment", "drift", "error")
    table = Table(*columns, title="what fools other measures")
    made = functools.partial(subject.pictures, prompts=prompts, first_seed=_SEED)

    def show(name: str, spoiled: Tensor, exact: Tensor = pictures) -> None:
        found = judges.judgement(spoiled, exact)
        intent = judges.objective.score(found.evaluation).loss
        drifted, error = float(drift(found.changes, _all_rows(len(spoiled)))), float(found.errors.mean())
        numbers = (found.loss(judges.objective), found.lower_bound(judges.objective), intent, drifted, error)
        table.add_row(name, *(f"{number:.3f}" for number in numbers))

    def run(name: str, policy: Policy) -> None:
        exact = exact_run(policy, subject.full.steps)
        show(name, made(policy), pictures if exact == subject.full else made(exact))

    show("full run", pictures)
    run("no guidance after the first step", Policy(steps=subject.full.steps, guidance=Guidance(stop_step=1)))
    run("four steps", Policy(steps=4))
    layers = CacheRule(units=("**.attn1", "**.attn2", "**.ff"), compute_steps=(0, 2, 5, 6, 9, 12))
    run(
        "layers reused in most of 15 steps",
        Policy(steps=15, guidance=Guidance(start_step=5, stop_step=12), cache=(layers,)),
    )
    styled = [" ".join(["fluent", *prompt.split()[1:]]) for prompt in prompts]
    show("one style whatever the prompt", subject.pictures(subject.full, styled, _SEED))
    alignment = subject.evaluation(pictures, prompts).alignment
    assert alignment is not None
    show("one picture whatever the prompt", pictures[alignment.argmax()].expand_as(pictures).contiguous())
    show(f"guidance scale {_SHOUTING:g} for {subject.assets.guidance_scale:g}", made(subject.full, guidance=_SHOUTING))
    show("a tenth of the contrast lost", faded(pictures, 0.1))
    return table


def coverage(subject: Subject, name: str) -> str:
    """Two seeds drawn for every prompt, one for the full run and one for the full run again, many times.

    Drawn prompt by prompt and not as whole sets of pictures: of few sets a lucky one would decide many repeats.
    """
    prompts = subject.prompts(REPEATED)
    seen = [
        subject.evaluation(pictures, prompts)
        for pictures in track(_sets(subject, prompts), description=f"{name} with other seeds", total=SETS)
    ]
    spoiled = subject.scorer.image_features(coarse(subject.pictures(subject.full, prompts, _SEED)))
    text = subject.scorer.text_features(prompts)
    features = torch.stack([each.features for each in seen])
    draw, rows, held = torch.Generator().manual_seed(0), torch.arange(REPEATED), 0
    for _ in range(REPEATS):
        one, other = torch.rand(SETS, REPEATED, generator=draw).argsort(0)[:2]
        full = Evaluation.of(features[one, rows], text)
        baseline = Baseline(full, spoiled, shuffled_alignment(full.features, text), tuple(prompts))
        objective = Objective(Reference.load(subject.assets.reference), baseline)
        loss = objective.interval(Evaluation.of(features[other, rows], text)).loss
        held += loss.low <= 0 <= loss.high
    return f"other seeds: {held} of {REPEATS} intervals of the full run's own loss hold zero ({REPEATED} pictures)"


def _sets(subject: Subject, prompts: list[str]) -> Iterator[Tensor]:
    for index in range(SETS):
        yield subject.pictures(subject.full, prompts, _SEED + 10**4 * (index + 1))


def scoring_share(subject: Subject, prompts: list[str]) -> str:
    """Time of judging over time of making and judging, for a policy of 40 % of the FLOPs."""
    objective = subject.objective(subject.pictures(subject.full, prompts, _SEED), prompts)
    policy = Policy(steps=subject.full.steps * 2 // 5)
    share = Pricer(subject.pipe, full_steps=subject.full.steps).price(policy).relative
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        pictures = subject.pictures(policy, prompts, _SEED)
        made = time.perf_counter()
        objective.score(subject.evaluation(pictures, prompts))
        end = time.perf_counter()
        taken.append((end - made) / (end - start))
    return f"scoring takes {sorted(taken)[1]:.1%} of the evaluation of a policy at {share:.0%} of the FLOPs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", choices=DEMO_NAMES, default=list(DEMO_NAMES))
    parser.add_argument("--pictures", type=int, default=PICTURES, help="of the ladders and adversaries")
    parser.add_argument("--quick", action="store_true", help="ladders and adversaries alone")
    args = parser.parse_args()
    console = Console(highlight=False, width=140)
    torch.manual_seed(0)
    for name in args.models:
        console.rule(name)
        subject = Subject.of(name)
        prompts = subject.prompts(args.pictures)
        pictures = subject.pictures(subject.full, prompts, _SEED)
        judges = Judges(subject, pictures, prompts)
        console.print(ladders(judges, pictures))
        console.print(adversaries(subject, judges, pictures, prompts))
        if not args.quick:
            console.print(coverage(subject, name))
            console.print(scoring_share(subject, prompts[:64]))


if __name__ == "__main__":
    main()
