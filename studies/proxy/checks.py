"""Can the objective be fooled, does it cry wolf, and what does it cost?

``python -m studies.proxy.checks`` prints for each shipped model:

- ladders: the loss of 128 full-run pictures spoiled in ten ways, each in five strengths; it must rise strictly. Four of
  the ways are fine: grain of 1 to 8 grey levels, blur of half a pixel, blocks of 8x8, lost parts of 6x6 pixels;
- policies and pictures that fool other measures; every loss must be above zero with confidence: no guidance (washed
  out), four steps, one style for all (fewer modes), one picture for all, far too much guidance (prompts shouted), pale
  pictures, layers reused in most steps;
- the full run against itself with other seeds, 100 times: how many 95 % intervals of its loss hold zero (at least 90
  must), and of its paired comparison;
- the share of a candidate's evaluation that scoring takes (at most a tenth).
"""

from __future__ import annotations

import argparse
import functools
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from autotune.cost import Pricer
from autotune.evaluation.content_fingerprint import content_fingerprint
from autotune.evaluation.judges import judges
from autotune.evaluation.pictures import generate
from autotune.models.shipped import DEMO_NAMES, DemoAssets, demo_assets, demo_pipeline
from autotune.options import JudgeOptions
from autotune.policy import CacheRule, Guidance, Policy
from autotune.quality import Baseline, Evaluation, Objective, Reference, Scorer, coarse, shuffled_alignment
from autotune.runtime import applied
from studies.proxy.exact import exact_run
from studies.proxy.spoiling import FINE_LADDERS, LADDERS, faded

PICTURES = 128
REPEATS = 100
REPEATED = 64
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


class Judges:
    """The panel of a search of the model, all pictures in pairs with exact ones of the same prompts and seeds."""

    def __init__(self, subject: Subject, pictures: Tensor, prompts: list[str]) -> None:
        self._subject, self._prompts = subject, prompts
        reference, spoiled = subject.assets.reference, coarse(pictures)
        size = (pictures.shape[-2], pictures.shape[-1])
        loaded = judges(JudgeOptions(scorer=subject.scorer), size=size, reference=reference)
        self._judges = loaded.further
        full, bad = self.evaluation(pictures, pictures), self.evaluation(spoiled, pictures)
        chance = shuffled_alignment(full.features, subject.scorer.text_features(prompts))
        baseline = Baseline(full, bad.features, chance, tuple(prompts), bad.errors, bad.further)
        references = loaded.references(reference, content_fingerprint(reference), size)
        self.objective = Objective(
            references["distance"], baseline, weights=loaded.panel, references=references, distance=loaded.estimator
        )

    def evaluation(self, pictures: Tensor, exact: Tensor) -> Evaluation:
        seen = self._subject.evaluation(pictures, self._prompts)
        errors = {each.name: each.errors(pictures, exact) for each in self._judges if each.kind == "paired"}
        further = {each.name: each.features(pictures) for each in self._judges if each.kind == "distribution"}
        return Evaluation(seen.features, seen.alignment, errors, further)

    def loss(self, pictures: Tensor, exact: Tensor) -> float:
        return self.objective.score(self.evaluation(pictures, exact)).loss


def ladders(judged: Judges, pictures: Tensor) -> Table:
    table = Table("ladder", *(f"strength {index}" for index in range(1, 6)), "rises", title="loss along the ladders")
    for name, (spoil, strengths) in {**LADDERS, **FINE_LADDERS}.items():
        spoiled = (spoil(pictures, strength) for strength in strengths)
        losses = [judged.loss(each, pictures) for each in spoiled]
        rises = all(low < high for low, high in itertools.pairwise((0.0, *losses)))
        cells = (f"{loss:.3f} at {strength:g}" for loss, strength in zip(losses, strengths, strict=True))
        table.add_row(name, *cells, "yes" if rises else "NO")
    return table


def adversaries(subject: Subject, judged: Judges, pictures: Tensor, prompts: list[str]) -> Table:
    names = tuple(judged.objective.panel.weights)
    table = Table("adversary", "loss", "95 % interval", *names, title="what fools other measures")
    made = functools.partial(subject.pictures, prompts=prompts, first_seed=_SEED)

    def show(name: str, spoiled: Tensor, exact: Tensor = pictures) -> None:
        found = judged.evaluation(spoiled, exact)
        score, bounds = judged.objective.score(found), judged.objective.interval(found).loss
        terms = (f"{score.terms[each]:.3f}" for each in names)
        table.add_row(name, f"{score.loss:.3f}", f"{bounds.low:.3f} to {bounds.high:.3f}", *terms)

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
        judged = Judges(subject, pictures, prompts)
        console.print(ladders(judged, pictures))
        console.print(adversaries(subject, judged, pictures, prompts))
        if not args.quick:
            console.print(coverage(subject, name))
            console.print(scoring_share(subject, prompts[:64]))


if __name__ == "__main__":
    main()
