"""The call that stands for a user's fits every class of pipelines, and is guided as it is told to be."""

from __future__ import annotations

import pytest

from autotune.cost.example import example_call
from autotune.pipelines.families import family_of
from tests.support.builders import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_it_takes_what_the_class_takes(name: str) -> None:
    pipe, (height, width) = FAMILIES[name].make(), FAMILIES[name].size
    signature = family_of(pipe).call_signature(pipe)
    for guided in (None, False, True):
        call = example_call(pipe, 2, height=height, width=width, guided=guided)
        assert call.keys() <= signature.takes
        assert {*signature.pictures, signature.rows_argument} <= call.keys()
        if guided is not None and signature.guidance_argument is not None:
            assert signature.guided(call) == guided
    assert all(call[name][0].size == (width, height) for name in signature.pictures)
    assert call.get("strength", 1) == 1
