"""How often does a search prune a candidate that is as good as the best one?

``python -m studies.search.false_pruning emoji-unet`` makes three runs of the full policy that differ by their seeds
alone. One is what losses are relative to. Of the other two, the best candidate gets a picture of every prompt by chance
and the candidate the other one, so that they are equal in law. The candidate is compared batch by batch, as a search
does. The share of candidates that the paired comparison gives up at any look is its false-prune rate.
"""

from __future__ import annotations

import argparse
import random

import torch
from scipy.stats import binomtest
from torch import Tensor

from autotune.evaluation.evaluator import Judged
from autotune.evaluation.pictures import generate
from autotune.models.shipped import DEMO_NAMES, demo_assets, demo_pipeline
from autotune.quality import Baseline, Evaluation, Objective, Reference, Scorer
from autotune.runtime import applied, full_policy
from autotune.search.pruning import COMPARED, is_behind
from studies.shipped import search_prompts

PICTURES = 256
BATCH = 16


def judged_runs(name: str, pictures: int) -> tuple[list[Judged], Tensor, tuple[str, ...]]:
    """Three runs with seeds of their own, their prompts' features (N, E), and the prompts."""
    pipe, assets = demo_pipeline(name), demo_assets(name)
    pipe.set_progress_bar_config(disable=True)
    scorer = Scorer(assets.scorer_dir)
    prompts = tuple(random.Random(0).sample(search_prompts(name)[0], pictures))
    text = scorer.text_features(prompts)
    runs = []
    for run in range(3):
        seeds = range(run * pictures, (run + 1) * pictures)
        with applied(pipe, full_policy(pipe)):
            made = generate(pipe, prompts, seeds, guidance_scale=assets.guidance_scale, batch_size=BATCH)
        runs.append(Judged.of(made, text, scorer, anchors=True))
        print(f"run {run + 1} of 3", flush=True)
    return runs, text, prompts


def looks(objective: Objective, candidate: Evaluation, best: Evaluation) -> list[bool]:
    """What the comparison says at every look, from the first pictures on."""
    return [is_behind(objective, candidate.head(made), best) for made in range(COMPARED, len(candidate), BATCH)]


def measure(name: str, repeats: int, pictures: int) -> tuple[Tensor, list[int]]:
    """Whether each look (repeats, looks) gives up, and the pictures made at every look."""
    (full, one, other), text, prompts = judged_runs(name, pictures)
    whole = full.baseline(text, prompts)
    reference = Reference.load(demo_assets(name).reference)
    generator = torch.Generator().manual_seed(0)
    found = []
    for repeat in range(repeats):
        order = torch.randperm(pictures, generator=generator)
        swap = torch.rand(pictures, generator=generator) < 0.5
        pair = (_mixed(one.evaluation, other.evaluation, which) for which in (swap, ~swap))
        candidate, best = (_rows(each, order) for each in pair)
        found.append(looks(Objective(reference, _ordered(whole, order)), candidate, best))
        if (repeat + 1) % 20 == 0:
            print(f"{repeat + 1} of {repeats} candidates", flush=True)
    return torch.tensor(found), list(range(COMPARED, pictures, BATCH))


def _mixed(one: Evaluation, other: Evaluation, which: Tensor) -> Evaluation:
    """Of every prompt the picture of one run or of the other."""
    assert one.alignment is not None and other.alignment is not None
    return Evaluation(
        torch.where(which[:, None], one.features, other.features), torch.where(which, one.alignment, other.alignment)
    )


def _rows(evaluation: Evaluation, rows: Tensor) -> Evaluation:
    return Evaluation(evaluation.features[rows], None if evaluation.alignment is None else evaluation.alignment[rows])


def _ordered(baseline: Baseline, rows: Tensor) -> Baseline:
    assert baseline.chance is not None
    prompts = tuple(baseline.prompts[row] for row in rows.tolist())
    return Baseline(_rows(baseline.full, rows), baseline.coarse[rows], baseline.chance[rows], prompts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", choices=DEMO_NAMES)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    given = parser.parse_args()
    pruned, made = measure(given.model, given.repeats, given.pictures)
    for column, pictures in enumerate(made):
        print(f"{pictures:4} pictures: {float(pruned[:, column].double().mean()):.3f} pruned at this look")
    total = int(pruned.any(dim=1).sum())
    low, high = binomtest(total, len(pruned)).proportion_ci()
    print(f"pruned at any look: {total / len(pruned):.3f} ({low:.3f} to {high:.3f}) of {len(pruned)} candidates")


if __name__ == "__main__":
    main()
