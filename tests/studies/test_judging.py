"""The studies' judges: ends of their scale, pairs with the exact run, and intervals."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from autotune.evaluation.examples import Examples
from autotune.evaluation.inputs import rows_of_prompts
from autotune.policy import Guidance, Policy
from autotune.quality import coarse
from studies import judging

COUNT = 96
FULL, COARSE, GUIDED = Policy(steps=9), Policy(steps=2), Policy(steps=9, guidance=Guidance(start_step=2, stop_step=5))


class Network:
    """Means of what random masks leave of a picture; texts are seen as the full run's picture of the same number."""

    def __init__(self, *_: Any) -> None:
        draw = torch.Generator().manual_seed(0)
        self._masks = torch.randn(3 * 64 * 64, 70, generator=draw)

    def image_features(self, pictures: Tensor) -> Tensor:
        values = pictures.float().flatten(1) @ self._masks
        return values / values.norm(dim=1, keepdim=True)

    def text_features(self, texts: tuple[str, ...]) -> Tensor:
        return self.image_features(noise(0)[[int(text) for text in texts]])


def noise(seed: int) -> Tensor:
    return torch.randint(256, (COUNT, 3, 64, 64), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


# The guided run's pictures by another intent.
ASTRAY = Policy(steps=5)

PICTURES = {FULL.key: noise(0), COARSE.key: coarse(noise(0)), GUIDED.key: noise(1), ASTRAY.key: noise(1)}


@pytest.fixture
def judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[judging.Judges]:
    monkeypatch.setattr(judging, "Scorer", Network)
    monkeypatch.setattr(judging, "feature_network", Network)
    monkeypatch.setattr(judging, "real_pictures", lambda model: noise(7))
    setup: Any = SimpleNamespace(full=FULL, intent=lambda policy: GUIDED if policy.guidance else FULL)
    examples = Examples(rows_of_prompts([str(row) for row in range(COUNT)]), tuple(range(COUNT)))

    def batches(policy: Policy) -> Iterator[Tensor]:
        yield from PICTURES[policy.key].split(32)

    yield judging.Judges(setup, examples, "any", tmp_path, pictures=batches)


def test_the_full_run_loses_nothing_and_coarse_pictures_all(judges: judging.Judges) -> None:
    assert judges.judged(FULL).losses == pytest.approx((0, 0, 0))
    distance, _, error = judges.judged(COARSE).losses
    assert (distance, error) == pytest.approx((1, 1))


def test_an_exact_run_has_no_error_and_may_lose_all_the_same(judges: judging.Judges) -> None:
    judged = judges.judged(GUIDED)
    _, alignment, error = judged.losses
    assert error == 0 and alignment > 0.5
    assert judged.loss == pytest.approx(sum(judged.losses) / 3)


def test_differences_hold_what_they_are_and_equals_are_equal(judges: judging.Judges) -> None:
    full, bad = judges.judged(FULL), judges.judged(COARSE)
    assert judges.compare(bad, bad).value == judges.compare(bad, bad).high == 0
    worse = judges.compare(bad, full)
    assert worse.value == pytest.approx(bad.loss)
    assert 0 < worse.low < worse.value < worse.high
    assert judges.compare(full, bad).value == pytest.approx(-worse.value)


def test_the_error_has_its_part_in_intervals(judges: judging.Judges) -> None:
    astray = judges.judged(ASTRAY)
    found = judges.compare(astray, judges.judged(GUIDED))
    assert found.value == pytest.approx(float(astray.errors.mean()) / 3)
    assert found.low < found.value < found.high


def test_what_networks_saw_is_kept(judges: judging.Judges, monkeypatch: pytest.MonkeyPatch) -> None:
    once = judges.judged(COARSE).losses
    monkeypatch.setitem(PICTURES, COARSE.key, noise(3))
    assert judges.judged(COARSE).losses == once
