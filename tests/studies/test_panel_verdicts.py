from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autotune.evaluation.second_opinion import PAIRS
from autotune.models.shipped import demo_assets
from autotune.quality import Reference
from studies.proxy.panel_verdicts import LastRounds, is_better
from studies.proxy.verdict_pictures import FINALISTS, PROMPTS, RUNS, Seen

TEXTURES = 27


def made(later: float = 0.0) -> LastRounds:
    """Of made-up features: coarse pictures are far off, and 8 steps a little, those of later captions by more."""
    draw = torch.Generator().manual_seed(0)
    dimensions = len(Reference.load(demo_assets().reference).gaussian.mean)

    def features(size: int) -> Tensor:
        return torch.randn(RUNS, PROMPTS, size, generator=draw)

    full, textures = features(dimensions), features(TEXTURES)
    fewer_textures = textures + 0.1 * features(TEXTURES)
    fewer_textures[:, PAIRS:] += later
    seen = Seen(
        text=torch.nn.functional.normalize(full.mean(0), dim=-1),
        full=full,
        coarse=full + 3 * torch.ones(dimensions) + features(dimensions),
        fewer=full + 0.3 * features(dimensions),
        full_textures=textures,
        coarse_textures=textures + 3,
        fewer_textures=fewer_textures,
    )
    return LastRounds("emoji-unet", seen)


@pytest.fixture(scope="module")
def rounds() -> LastRounds:
    return made()


def test_equals_are_equal_and_differences_are_found(rounds: LastRounds) -> None:
    sample = rounds.equal(torch.Generator().manual_seed(1))
    assert sample.estimates.shape == (FINALISTS,) and sample.pseudo.shape == (PROMPTS, FINALISTS)
    reach = 5 * sample.pseudo.std(0).max() / PROMPTS**0.5
    assert (sample.estimates.abs() < reach).all()
    assert is_better(sample.moved(-2 * reach.expand(FINALISTS)))
    assert not is_better(sample.moved(2 * reach.expand(FINALISTS)))


def test_runs_of_the_null_are_alike(rounds: LastRounds) -> None:
    sample = rounds.null(16, torch.Generator().manual_seed(2))
    assert sample.pseudo.shape == (16, FINALISTS)
    assert not is_better(sample.moved(sample.estimates.abs().max().expand(FINALISTS)))


def test_what_is_true_of_all_captions_is_the_truth(rounds: LastRounds) -> None:
    # Of 480 captions a last round compares 128 in pairs, and draws of them others than the first.
    assert (made(later=1.0)._gains - rounds._gains > 0.1).all()
