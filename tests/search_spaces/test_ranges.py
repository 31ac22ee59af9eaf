from __future__ import annotations

from pathlib import Path

import optuna
import pytest

from autotune.core.errors import InputError
from search_spaces import Knob, UNetSpace, read_ranges
from tests.search_spaces.test_unet_space import PLAIN, SPACE


def written(folder: Path, text: str) -> Path:
    path = folder / "space.toml"
    path.write_text(text)
    return path


def test_numbers_fix_and_pairs_bound(tmp_path: Path) -> None:
    ranges = read_ranges(written(tmp_path, "[knobs]\ninterval = [2, 10]\nforecast = 0\n"))
    assert ranges == {"interval": (2, 10), "forecast": (0, 0)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[knob]\ninterval = 2\n", "'knob' means nothing here; did you mean 'knobs'"),
        ("", "changes nothing"),
        ("[knobs]\n", "changes nothing"),
        ("knobs = 3\n", "changes nothing"),
        ("[knobs]\ninterval = [2, 3, 4]\n", r"knobs.interval is \[2, 3, 4\]; give a whole number or two"),
        ("[knobs]\ninterval = 2.5\n", "knobs.interval is 2.5"),
        ("[knobs]\ninterval = true\n", "knobs.interval is True"),
        ("[knobs]\ninterval = 'three'\n", "knobs.interval is 'three'"),
        ("interval = ", "is not a TOML file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_ranges(written(tmp_path, text))
    assert "space.toml" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_ranges(tmp_path / "none.toml")


def test_samples_keep_to_the_ranges() -> None:
    space = SPACE.within({"interval": (7, 9), "depth": (2, 2), "switch": (0, 0), "guidance_start": (0, 0)})
    assert isinstance(space, UNetSpace)
    policies = [space.sample(seed) for seed in range(40)]
    assert not any(policy.resolution for policy in policies)
    assert {policy.cache[0].units for policy in policies} == {(SPACE.reusable[1],)}
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    intervals = {space.values_of(study.ask())["interval"] for _ in range(20)}
    assert intervals == {7, 8, 9}
    assert {knob.name: (knob.low, knob.high) for knob in SPACE.knobs}["interval"] == (1, 6), (
        "the space itself is as it was"
    )


def test_recipes_are_moved_into_the_ranges_but_for_fewer_steps() -> None:
    space = SPACE.within({"interval": (4, 6), "guidance_stop": (20, 20)})
    first, *others = space.recipes
    assert first.values == PLAIN
    assert all(4 <= recipe.values["interval"] <= 6 for recipe in others)
    assert all(recipe.values["guidance_stop"] == 20 for recipe in others)
    for recipe in space.recipes:
        space.policy(recipe.values, 20)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ({"intervall": (1, 2)}, "no knob 'intervall'; did you mean 'interval'"),
        ({"interval": (0, 2)}, "'interval' takes values from 1 to 50, not 0"),
        ({"depth": (0, 99)}, "'depth' takes values from 0 to 4, not 99"),
        ({"interval": (3, 2)}, "low 3 exceeds high 2"),
    ],
)
def test_ranges_without_meaning_are_refused(ranges: dict[str, tuple[int, int]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SPACE.within(ranges)


def test_a_widened_knob_keeps_its_limits() -> None:
    knob = Knob("n", 1, 6, "", most=50).within(2, 40)
    assert (knob.low, knob.high, knob.limits) == (2, 40, (1, 50))
    assert knob.within(1, 50).limits == (1, 50)
