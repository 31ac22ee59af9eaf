"""A last round that is also judged by a judge that the search did not ask."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from autotune.core.errors import InputError
from autotune.policy import Policy
from autotune.quality.panel import JUDGES, Judge, Sources
from autotune.report.page import render
from autotune.report.run import read_run
from autotune.report.verdict import verdict
from autotune.workflows.tune import tune
from tests.support.fake_search import FakePictures, degradation_of_saving

Pairs = Callable[[Tensor, Tensor], Tensor]

# More than candidates differ from the exact run, and less than its coarse pictures do.
_MUCH = 300.0


def change(pictures: Tensor, exact: Tensor) -> Tensor:
    return (pictures.float() - exact.float()).flatten(1).square().mean(1).double()


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> Callable[[Pairs], None]:
    """Puts a judge of pairs called ``another`` into the registry."""

    def register(pairs: Pairs) -> None:
        def load(sources: Sources) -> Pairs:
            return pairs

        monkeypatch.setitem(JUDGES, "another", Judge("paired", load, "what a test says"))

    return register


def test_better_is_what_both_find_better(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], judge: Callable[[Pairs], None]
) -> None:
    judge(change)
    result = tune(pipe, "40%", **arguments | {"second_opinion": "another"})
    finalists = result.finalists
    assert finalists.second_opinion is not None and finalists.second_opinion.judge == "another"
    assert finalists.second_opinion.difference.high < 0 and finalists.better
    assert all(run.second_opinion is not None for run in finalists.contenders)
    assert finalists.full.second_opinion is not None and finalists.full.second_opinion.value == 0
    document = json.loads((result.run_dir / "finalists.json").read_text())
    assert document["second_opinion"]["judge"] == "another"
    page = render(read_run(result.run_dir))
    assert "loss by another" in page and "Second opinion" in page
    # The search itself asks nobody else: neither its losses nor the policy's weights know of it.
    assert result.policy.quality is not None and "another" not in result.policy.quality.weights


def test_where_it_disagrees_fewer_steps_are_exported(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], judge: Callable[[Pairs], None]
) -> None:
    judge(lambda pictures, exact: (change(pictures, exact) > 0).double() / (1 + change(pictures, exact)))
    result = tune(pipe, "40%", **arguments | {"second_opinion": "another"})
    assert result.finalists.difference.high < 0 and not result.finalists.better
    assert result.policy.key == result.baseline.key
    assert "is worse before another, which the search did not ask" in verdict(result.finalists)


def test_one_that_sees_no_difference_does_not_object(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], judge: Callable[[Pairs], None]
) -> None:
    """Before it both are all but exact: 0.001 of what coarse pictures lose."""

    def blind(pictures: Tensor, exact: Tensor) -> Tensor:
        found = change(pictures, exact)
        return torch.where(found > _MUCH, found, found.sign() * _MUCH / 1000)

    judge(blind)
    result = tune(pipe, "40%", **arguments | {"second_opinion": "another"})
    second = result.finalists.second_opinion
    assert second is not None and 0 <= second.difference.high < 0.02
    assert result.finalists.better and "It is no worse before another" in verdict(result.finalists)


def test_asked_again_with_nobody_the_search_is_the_same(
    pipe: Any, pictures: FakePictures, arguments: dict[str, Any], judge: Callable[[Pairs], None]
) -> None:
    judge(change)
    asked = tune(pipe, "40%", **arguments | {"second_opinion": "another"})
    again = tune(pipe, "40%", **arguments | {"second_opinion": "none"})
    assert again.finalists.second_opinion is None and again.finalists.difference == asked.finalists.difference


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"second_opinion": "anothr"}, "there is no judge called 'anothr'; did you mean 'another'"),
        ({"second_opinion": "alignment"}, "judge alignment is one that the search asks"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is_written(
    pipe: Any, arguments: dict[str, Any], judge: Callable[[Pairs], None], given: dict[str, str], said: str
) -> None:
    judge(change)
    with pytest.raises(InputError, match=said):
        tune(pipe, "40%", **arguments | given)
    assert not arguments["run_dir"].exists()


def test_one_that_gives_no_numbers_is_refused_before_anything_is_written(
    pipe: Any, arguments: dict[str, Any], judge: Callable[[Pairs], None]
) -> None:
    judge(lambda pictures, exact: torch.full((len(pictures),), torch.nan))
    with pytest.raises(InputError, match="another"):
        tune(pipe, "40%", **arguments | {"second_opinion": "another"})
    assert not arguments["run_dir"].exists()


def test_the_strongest_fewer_steps_are_the_rival(pipe: Any, pictures: FakePictures, arguments: dict[str, Any]) -> None:
    """A solver that makes steps better is no gain over fewer steps: it is what fewer steps are."""

    def degradation(policy: Policy) -> float:
        return degradation_of_saving(policy) * (0.5 if policy.scheduler is not None else 1.0)

    pictures.degradation = degradation
    result = tune(pipe, "40%", **arguments)
    fewer = result.finalists.fewer_steps
    assert fewer.policy.scheduler is not None
    assert result.policy.quality is not None and result.policy.quality.fewer_steps_policy == fewer.id
    assert result.policy.version == 2 and fewer.id in verdict(result.finalists)
