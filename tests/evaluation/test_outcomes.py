"""What is kept of the first inputs of a list is gone on with, and what is kept of more is cut."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.inputs import rows_of_prompts
from autotune.policy import Policy
from autotune.quality.jury import LoadedJudge
from autotune.quality.panel import Panel
from tests.support.fake_search import HELD_OUT, PROMPTS, FakePictures, ReadingScorer

FULL, POLICY = Policy(steps=10), Policy(steps=4)
ALL = [*PROMPTS, *HELD_OUT] * 4
FEW = 48


class Network:
    """Another look at the pictures that :class:`ReadingScorer` reads."""

    def image_features(self, images: Tensor) -> Tensor:
        return images[:, 0, 0].float() / 255


class World:
    def __init__(self, folder: Path) -> None:
        self.folder, self.pictures = folder, FakePictures(batch=8)
        self.made: list[tuple[str, int, int]] = []

    def make(self, policy: Policy, first: int, last: int) -> Iterator[Tensor]:
        self.made.append((policy.key, first, last))
        return self.pictures(policy, ALL[first:last], range(first, last))

    def evaluator(self, count: int, network: Network | None = None) -> Evaluator:
        return Evaluator(
            self.make,  # type: ignore[arg-type]
            ReadingScorer(),
            rows_of_prompts(ALL[:count]),
            None,
            FULL,
            self.folder,
            network=network,
            weights=Panel({"distance": 1.0, "alignment": 4.0, "error": 2.0}),
            further=[LoadedJudge("error", lambda a, b, first=0: (a.double() - b.double()).abs().mean((1, 2, 3)))],
            error_pictures=40,
        )


@pytest.mark.parametrize("network", [None, Network()])
def test_what_is_kept_of_the_first_inputs_is_gone_on_with(tmp_path: Path, network: Network | None) -> None:
    world, other = World(tmp_path / "in two"), World(tmp_path / "at once")
    world.evaluator(FEW, network).outcome(POLICY)
    before = len(world.made)
    continued = world.evaluator(len(ALL), network)
    found = continued.outcome(POLICY)
    assert all(first >= FEW for _, first, _ in world.made[before:])
    whole = other.evaluator(len(ALL), network)
    wanted = whole.outcome(POLICY)
    for name in ("features", "alignment"):
        assert torch.equal(getattr(found.evaluation, name), getattr(wanted.evaluation, name))
    assert torch.equal(found.evaluation.errors["error"], wanted.evaluation.errors["error"])
    assert torch.equal(found.preview, wanted.preview)
    assert continued.objective.score(found.evaluation) == whole.objective.score(wanted.evaluation)
    assert world.evaluator(len(ALL), network).kept(POLICY) is not None


def test_what_is_kept_of_more_inputs_is_cut(tmp_path: Path) -> None:
    world, other = World(tmp_path / "more"), World(tmp_path / "few")
    world.evaluator(len(ALL)).outcome(POLICY)
    before = len(world.made)
    few = world.evaluator(FEW)
    found = few.outcome(POLICY)
    assert len(world.made) == before and len(found.evaluation) == FEW
    alone = other.evaluator(FEW)
    assert few.objective.score(found.evaluation) == alone.objective.score(alone.outcome(POLICY).evaluation)


def test_fewer_inputs_are_not_all(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.evaluator(FEW).outcome(POLICY)
    assert world.evaluator(len(ALL)).kept(POLICY) is None
