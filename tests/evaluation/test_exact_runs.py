"""Errors in pairs with exact runs: made once, kept, counted, shared, and read from what earlier releases kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from autotune.core.errors import RunFailed
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.inputs import rows_of_prompts
from autotune.evaluation.outcomes import PREVIEW
from autotune.policy import Guidance, Policy
from autotune.quality import Evaluation, Reference, estimator
from autotune.quality.jury import LoadedJudge
from autotune.quality.panel import Panel
from tests.support.fake_search import HELD_OUT, PROMPTS, FakePictures, ReadingScorer

FULL = Policy(steps=10)
PLAIN, GUIDED = Policy(steps=4), Policy(steps=4, guidance=Guidance(start_step=1, stop_step=3))
ALSO_GUIDED = Policy(steps=8, guidance=Guidance(start_step=2, stop_step=6))
ALL = [*PROMPTS, *HELD_OUT] * 2
PANEL = Panel({"distance": 1.0, "alignment": 4.0, "error": 2.0})


def differences(pictures: Tensor, exact: Tensor, first_row: int = 0) -> Tensor:
    return (pictures.double() - exact.double()).abs().mean((1, 2, 3)) / 255


class World:
    """Pictures and how many of which policy were made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures = FakePictures(batch=8)
        self.asked: list[tuple[str, int]] = []

    def make(self, policy: Policy, first: int, last: int) -> Iterator[Tensor]:
        return self.pictures(policy, ALL[first:last], range(first, last))

    def exact(self, policy: Policy, first: int, last: int) -> Iterator[Tensor]:
        self.asked.append((policy.key, last - first))
        return self.make(policy, first, last)

    def evaluator(self, panel: Panel = PANEL, **more: Any) -> Evaluator:
        judges = [LoadedJudge(name, differences) for name in panel.errors]
        return Evaluator(
            self.make,  # type: ignore[arg-type]
            ReadingScorer(),
            rows_of_prompts(ALL),
            None,
            FULL,
            self.folder,
            weights=panel,
            further=judges,
            make_exact=self.exact,  # type: ignore[arg-type]
            **{"error_pictures": 16, **more},
        )

    def whole(self, policy: Policy) -> Tensor:
        return torch.cat(list(self.pictures(policy, ALL, range(len(ALL)))))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_errors_are_of_the_first_pictures_in_pairs_with_the_exact_run(world: World) -> None:
    evaluator = world.evaluator(error_pictures=11)
    exact = Policy(steps=10, guidance=Guidance(start_step=2, stop_step=7))
    found = evaluator.outcome(GUIDED).evaluation
    wanted = differences(world.whole(GUIDED)[:11], world.whole(exact)[:11])
    torch.testing.assert_close(found.errors["error"], wanted)
    assert len(found) == len(ALL) and found.head(5).errors["error"].shape == (5,)
    score = evaluator.objective.score(found)
    assert score.error is not None and score.error > 0 and score.terms["error"] == score.error


def test_the_full_run_and_what_approximates_nothing_have_none(world: World) -> None:
    evaluator = world.evaluator()
    assert evaluator.objective.score(evaluator.full.evaluation).loss == 0
    # Its guidance is no other policy's, being on no grid.
    later = Policy(steps=10, guidance=Guidance(start_step=3, stop_step=9))
    assert evaluator.outcome(later).evaluation.errors["error"].tolist() == [0.0] * 16
    assert world.asked == []


def test_an_exact_run_is_made_once_for_all_of_its_intent_and_counted(world: World) -> None:
    evaluator = world.evaluator()
    evaluator.outcome(PLAIN)
    assert world.asked == [] and evaluator.exact_runs.take_made() == []  # The full run's pictures were there.
    evaluator.outcome(GUIDED)
    evaluator.outcome(ALSO_GUIDED)
    ((policy, count),) = evaluator.exact_runs.take_made()
    # As far as the candidates got, part by part.
    assert (policy.id, count) == ("s10-g2_7", 16) and world.asked == [(policy.key, 8), (policy.key, 8)]
    assert evaluator.exact_runs.take_made() == []
    # Another worker on the folder, or the same command again.
    again = world.evaluator()
    again.outcome(Policy(steps=9, guidance=Guidance(start_step=2, stop_step=6)))
    assert len(world.asked) == 2


def test_a_candidate_that_is_an_exact_run_serves_as_one(world: World) -> None:
    evaluator = world.evaluator()
    evaluator.outcome(Policy(steps=10, guidance=Guidance(start_step=2, stop_step=7)))
    evaluator.outcome(GUIDED)
    assert world.asked == []


def test_without_judges_of_pairs_nothing_is_made(world: World) -> None:
    evaluator = world.evaluator(Panel({"distance": 1.0, "alignment": 4.0}))
    evaluator.outcome(GUIDED)
    assert world.asked == [] and not (world.folder / "exact").exists()
    assert evaluator.objective.score(evaluator.outcome(GUIDED).evaluation).error is None


@pytest.mark.parametrize("count", [16, PREVIEW + 8])
def test_what_an_earlier_release_kept_is_read(world: World, count: int) -> None:
    """Errors are found in the pictures that it kept to look at; where these are too few, pictures are made again."""
    world.evaluator(Panel({"distance": 1.0})).outcome(GUIDED)
    made = len(world.pictures.made)
    evaluator = world.evaluator(error_pictures=count)
    found = evaluator.outcome(GUIDED).evaluation
    assert found.errors["error"].shape == (count,)
    # The exact run; with more pictures than were kept also the full run and the candidate.
    assert len({*world.pictures.made[made:]}) == (1 if count <= PREVIEW else 3)
    fresh = World(world.folder / "fresh").evaluator(error_pictures=count).outcome(GUIDED).evaluation
    torch.testing.assert_close(found.errors["error"], fresh.errors["error"])
    assert evaluator.objective.score(found).loss == pytest.approx(
        World(world.folder / "fresh").evaluator(error_pictures=count).objective.score(fresh).loss
    )


def test_fewer_or_more_pairs_than_before(world: World) -> None:
    world.evaluator(error_pictures=12).outcome(GUIDED)
    assert len(world.evaluator(error_pictures=8).outcome(GUIDED).evaluation.errors["error"]) == 8
    assert [count for _, count in world.asked] == [8, 4]
    assert len(world.evaluator(error_pictures=16).outcome(GUIDED).evaluation.errors["error"]) == 16
    assert [count for _, count in world.asked] == [8, 4, 4]


def test_two_workers_that_need_the_same_run_at_once_find_the_same(world: World) -> None:
    one, other = world.evaluator(), world.evaluator()
    found = []

    def meanwhile(count: int, policy: Policy) -> None:
        world.pictures.before = lambda count, policy: None
        found.append(other.outcome(ALSO_GUIDED).evaluation)

    world.pictures.before = meanwhile
    one.outcome(GUIDED)
    assert len(world.asked) == 3 and len(found) == 1
    again = world.evaluator()
    torch.testing.assert_close(again.outcome(ALSO_GUIDED).evaluation.errors, found[0].errors)
    assert len(world.asked) == 3
    assert all(path.suffix == ".safetensors" for path in (world.folder / "exact").iterdir())


def test_a_damaged_exact_run_is_named(world: World) -> None:
    evaluator = world.evaluator()
    evaluator.outcome(GUIDED)
    file = next(path for path in (world.folder / "exact").iterdir() if path.stem != FULL.key)
    file.write_bytes(b"damaged")
    with pytest.raises(RunFailed, match=f"{file.name} is damaged"):
        world.evaluator().outcome(ALSO_GUIDED)


def test_an_interrupt_leaves_no_half_exact_run(world: World) -> None:
    evaluator = world.evaluator()

    def interrupt(count: int, policy: Policy) -> None:
        raise KeyboardInterrupt

    world.pictures.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        evaluator.outcome(GUIDED)
    assert [path.stem for path in (world.folder / "exact").iterdir()] == [FULL.key]
    world.pictures.before = lambda count, policy: None
    assert evaluator.outcome(GUIDED).evaluation.errors["error"].min() > 0


def test_candidates_that_are_given_up_have_errors_of_what_was_made(world: World) -> None:
    seen: list[int] = []
    evaluator = world.evaluator()

    def should_prune(partial: Any) -> bool:
        seen.append(len(partial.errors["error"]))
        loss = evaluator.objective.head(len(partial)).score(partial)
        assert loss.error is not None
        return len(partial) >= 24

    evaluator.outcome(GUIDED, should_prune)
    assert seen == [8, 8, 8]


def test_several_distributions_and_scores_are_kept_with_units_of_their_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autotune.quality.panel import JUDGES, Judge

    def never(sources: object) -> Any:
        raise AssertionError

    monkeypatch.setitem(JUDGES, "pixels", Judge("distribution", never, "pixels"))
    monkeypatch.setitem(
        JUDGES, "places", Judge("distribution", never, "pixels at two places", estimator("frechet").against)
    )
    monkeypatch.setitem(JUDGES, "contrast", Judge("alignment", never, "contrast"))
    panel = Panel({"pixels": 1.0, "places": 1.0, "contrast": 0.5})
    looks: dict[str, Callable[..., Tensor]] = {
        "pixels": lambda pictures: pictures[:, 0, 0].float() / 255,
        "places": lambda pictures: pictures[:, 0, :2].float() / 255,
        "contrast": lambda pictures, prompts: pictures.float().std((1, 2, 3)) + 0 * len(prompts),
    }

    def evaluator() -> Evaluator:
        return Evaluator(
            world.make,  # type: ignore[arg-type]
            ReadingScorer(), rows_of_prompts(ALL), None, FULL, world.folder, weights=panel,
            further=[LoadedJudge(name, look) for name, look in looks.items()],
        )  # fmt: skip

    first = evaluator()
    assert first.objective.score(first.full.evaluation).loss == 0
    outcome = first.outcome(Policy(steps=2)).evaluation
    assert outcome.further["places"].shape == (len(ALL), 2, 8)
    score = first.objective.score(outcome)
    assert score.loss == pytest.approx(score.terms["pixels"] + score.terms["places"] + 0.5 * score.terms["contrast"])
    interval = first.objective.interval(outcome, resamples=50).loss
    assert interval.low <= interval.value <= interval.high
    made = len(world.pictures.made)
    again = evaluator()
    assert again.objective.score(again.outcome(Policy(steps=2)).evaluation) == score
    assert len(world.pictures.made) == made
    # A reference of its own in place of the full run's pictures.
    assert isinstance(Reference.of(outcome.further["pixels"]), Reference)


def test_a_candidate_that_is_pruned_early_is_compared_in_few_pairs(world: World) -> None:
    evaluator = world.evaluator(error_pictures=24)
    seen: list[tuple[int, int]] = []

    def should_prune(partial: Evaluation) -> bool:
        seen.append((len(partial), len(partial.errors["error"])))
        return len(partial) == 32

    found = evaluator.outcome(GUIDED, should_prune).evaluation
    ((exact, count),) = evaluator.exact_runs.take_made()
    assert seen == [(8, 8), (16, 8), (24, 8), (32, 8)] and count == 8
    torch.testing.assert_close(found.errors["error"], differences(world.whole(GUIDED)[:8], world.whole(exact)[:8]))


def test_one_that_goes_on_is_compared_in_all_pairs_at_once(world: World) -> None:
    evaluator = world.evaluator(error_pictures=24)
    seen: list[tuple[int, int]] = []

    def should_prune(partial: Evaluation) -> bool:
        seen.append((len(partial), len(partial.errors["error"])))
        return False

    found = evaluator.outcome(GUIDED, should_prune).evaluation
    ((exact, count),) = evaluator.exact_runs.take_made()
    assert seen[:5] == [(8, 8), (16, 8), (24, 8), (32, 8), (40, 24)] and count == 24
    torch.testing.assert_close(found.errors["error"], differences(world.whole(GUIDED)[:24], world.whole(exact)[:24]))


def test_more_pairs_than_looks_have_pictures_are_made_to_the_end(world: World) -> None:
    evaluator = world.evaluator(error_pictures=44)
    found = evaluator.outcome(GUIDED).evaluation
    ((exact, count),) = evaluator.exact_runs.take_made()
    assert count == 44
    torch.testing.assert_close(found.errors["error"], differences(world.whole(GUIDED)[:44], world.whole(exact)[:44]))
