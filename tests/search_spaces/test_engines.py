"""What is found in a narrowed space can be exported, whatever a search does with it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from autotune.cli.export import configuration
from autotune.study.manifest import _encoded
from search_spaces import SearchSpace, engine_named, moved, space_for
from tests.support.builders import FAMILIES

STEPS = 10


@pytest.fixture(scope="module")
def pipe() -> Any:
    return FAMILIES["sd3"].make()


@pytest.fixture(scope="module")
def space(pipe: Any) -> SearchSpace:
    return space_for(pipe, steps=STEPS, engine="cache-dit")


def test_only_the_range_of_blocks_and_its_steps_are_left(space: SearchSpace) -> None:
    free = {knob.name: (knob.low, knob.high) for knob in space.knobs if knob.low < knob.high}
    steps = {"block_interval", "warm_up", "cool_down", "late_interval", "late_start"}
    assert free.keys() == {"first_block", "blocks"} | steps
    assert free["first_block"] == (1, 3)


def test_neighbours_of_knobs_and_of_schedules_can_be_exported(pipe: Any, space: SearchSpace) -> None:
    draw, values, cached = random.Random(0), dict(space.recipes[1].values), 0
    for _ in range(40):
        values = space.nearby(values, draw)
        policy = space.policy(values, STEPS)
        assert space.explicit_noise_levels(policy) == policy, "noise levels that are fixed do not move"
        changed = moved(policy, draw)
        configuration(pipe, policy if changed is None else changed, "cache-dit")
        cached += bool(policy.cache)
    assert cached > 5


def test_a_name_in_place_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert engine_named(Path("cache-dit")) == "cache-dit"
    assert engine_named(Path("cache-dit.toml")) is engine_named({"blocks": (1, 2)}) is engine_named(None) is None
    assert _encoded("space", "cache-dit", as_inputs=False) == "cache-dit", "workers narrow it likewise"
    Path("cache-dit").touch()
    assert engine_named("cache-dit") is None, "a file of that name is a file"
