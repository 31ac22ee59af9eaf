from __future__ import annotations

from typing import Any

import pytest
import torch

from autotune.core.errors import InputError
from autotune.evaluation.generation import PictureMaker, picture_maker, without_bars
from autotune.evaluation.inputs import rows_of_prompts
from autotune.evaluation.pictures import generate
from autotune.policy import Guidance, Policy
from autotune.runtime import applied
from autotune.runtime.apply import session_of
from autotune.runtime.models import native_size
from autotune.runtime.prefix.checkpoints import PrefixCache
from tests.support.builders import FAMILIES


def test_what_is_not_given_is_the_models_own(pipe: Any) -> None:
    own = picture_maker(pipe)
    assert (own.height, own.width) == native_size(pipe)
    assert own.guidance_scale == 7.5 and own.guided
    assert picture_maker(pipe, height=16, width=64, guidance_scale=1, batch_size=3) == PictureMaker(pipe, 16, 64, 1, 3)
    assert not picture_maker(pipe, guidance_scale=1).guided


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"height": 0}, "height is 0; give a multiple of 8"),
        ({"width": 31}, "width is 31"),
        ({"batch_size": 0}, "batch_size is 0; give a number from 1"),
    ],
)
def test_what_cannot_be_made_is_refused(pipe: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        picture_maker(pipe, **options)


def test_videos_are_refused() -> None:
    with pytest.raises(InputError, match="WanPipeline makes videos"):
        picture_maker(FAMILIES["wan"].make())


def test_a_pipeline_under_a_policy_is_refused(pipe: Any) -> None:
    with applied(pipe, Policy(steps=2)), pytest.raises(InputError, match="remove_policy"):
        picture_maker(pipe)


def test_pictures_come_in_batches_under_the_policy(pipe: Any) -> None:
    maker = picture_maker(pipe, guidance_scale=3, batch_size=2)
    prompts, seeds = ["noto apple", "noto dog", "noto apple"], [3, 4, 5]
    done: list[int] = []
    batches = list(maker.pictures(Policy(steps=2), rows_of_prompts(prompts), seeds, done.append))
    assert [len(batch) for batch in batches] == [2, 1] and done == [2, 3]
    assert session_of(pipe) is None
    expected = generate(pipe, prompts, seeds, guidance_scale=3, steps=2, batch_size=2)
    assert torch.equal(torch.cat(batches), expected)


def test_a_policy_that_does_not_run_is_found_before_the_first_picture(pipe: Any) -> None:
    maker = picture_maker(pipe)
    maker.check(Policy(steps=2))
    with pytest.raises(InputError):
        maker.check(Policy(steps=2, timesteps="karras"))
    assert session_of(pipe) is None


def test_bars_come_back(pipe: Any) -> None:
    before = dict(pipe._progress_bar_config)
    with pytest.raises(KeyError), without_bars(pipe):
        assert pipe._progress_bar_config["disable"]
        raise KeyError
    assert pipe._progress_bar_config == before


def test_prefixes_change_no_picture_and_spare_steps(pipe: Any) -> None:
    prefixes = PrefixCache(2**28)
    plain, shared = picture_maker(pipe, batch_size=2), picture_maker(pipe, batch_size=2, prefixes=prefixes)
    prompts, seeds = ["noto apple", "noto dog", "noto apple"], [3, 4, 5]
    for policy in (Policy(steps=4), Policy(steps=4, guidance=Guidance(stop_step=2))):
        expected = torch.cat(list(plain.pictures(policy, rows_of_prompts(prompts), seeds)))
        assert torch.equal(torch.cat(list(shared.pictures(policy, rows_of_prompts(prompts), seeds))), expected)
    assert [(use.pictures, use.skipped) for use in prefixes.take_uses()] == [(2, 0), (1, 0), (2, 2), (1, 2)]
    assert session_of(pipe) is None
