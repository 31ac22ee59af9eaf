"""Whose fault it is that a candidate cannot be evaluated, told by an experiment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autotune.core.errors import RunFailed, Unavailable
from autotune.evaluation.evaluator import Evaluator
from autotune.evaluation.inputs import rows_of_prompts
from autotune.policy import Policy
from autotune.search.diagnosis import CandidateError, Diagnosis
from tests.support.fake_search import HELD_OUT, PROMPTS, FakePictures, ReadingScorer

FULL, CANDIDATE = Policy(steps=10), Policy(steps=4)
ALL = [*PROMPTS, *HELD_OUT] * 2
BATCH = 4


def diagnosis(tmp_path: Path, pictures: FakePictures) -> Diagnosis:
    def make(policy: Policy, first: int, last: int) -> object:
        return pictures(policy, ALL[first:last], range(first, last))

    pictures.batch = BATCH
    return Diagnosis(Evaluator(make, ReadingScorer(), rows_of_prompts(ALL), None, FULL, tmp_path), None)  # type: ignore[arg-type]


def only(doomed: Policy | None) -> Callable[[int, Policy], None]:
    def fail(count: int, policy: Policy) -> None:
        if doomed is None or policy.key == doomed.key:
            raise RuntimeError("no  kernel\nfor this")

    return fail


def test_what_fails_again_while_the_full_run_works_is_the_candidates_own(tmp_path: Path) -> None:
    pictures = FakePictures()
    told = diagnosis(tmp_path, pictures)
    pictures.before = only(CANDIDATE)
    with pytest.raises(CandidateError, match="^RuntimeError: no kernel$"):
        told.check(RuntimeError("no  kernel\nfor this"), lambda: told.evaluate(CANDIDATE))


def test_what_the_full_run_meets_as_well_is_not(tmp_path: Path) -> None:
    pictures = FakePictures()
    told = diagnosis(tmp_path, pictures)
    pictures.before = only(None)
    told.check(RuntimeError(), lambda: told.evaluate(CANDIDATE))


def test_what_is_gone_the_second_time_is_not(tmp_path: Path) -> None:
    told = diagnosis(tmp_path, FakePictures())
    told.check(RuntimeError(), lambda: told.evaluate(CANDIDATE))


@pytest.mark.parametrize("error", [Unavailable("gone"), RunFailed("damaged"), OSError(28, "No space left")])
def test_what_concerns_all_by_its_kind_costs_no_picture(error: Exception, tmp_path: Path) -> None:
    pictures = FakePictures()
    told = diagnosis(tmp_path, pictures)
    made = len(pictures.made)
    pictures.before = only(CANDIDATE)
    told.check(error, lambda: told.evaluate(CANDIDATE))
    assert len(pictures.made) == made


@pytest.mark.parametrize(("beyond", "judged"), [(0, 1), (BATCH, 2), (5 * BATCH, 6), (len(ALL), 12)])
def test_no_more_pictures_are_made_than_it_takes(beyond: int, judged: int, tmp_path: Path) -> None:
    told = diagnosis(tmp_path, FakePictures())
    batches: list[Tensor] = []

    class Counting(ReadingScorer):
        def image_features(self, images: Tensor) -> Tensor:
            batches.append(images)
            return super().image_features(images)

    told._evaluator._scorer = Counting()
    told.evaluate(CANDIDATE, beyond)
    assert len(batches) == judged


def test_memory_of_the_error_is_let_go(tmp_path: Path) -> None:
    """The candidate's tensors hang on the frames of the traceback."""
    told = diagnosis(tmp_path, FakePictures())
    alive: list[bool] = []

    class Held:
        def __del__(self) -> None:
            alive.remove(True)

    def candidate() -> None:
        held = Held()
        alive.append(True)
        assert held is not None
        raise torch.OutOfMemoryError("CUDA out of memory")

    try:
        candidate()
    except Exception as error:
        assert alive == [True]
        told.check(error, lambda: told.evaluate(CANDIDATE))
        assert not alive
