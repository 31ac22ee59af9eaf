"""What two studies must have in common for their scores to mix."""

from __future__ import annotations

from dataclasses import replace

import pytest

from autotune.study.configuration import Configuration, difference, differs

ONE = Configuration(
    model="model",
    weights="1",
    budget="40%",
    height=64,
    width=64,
    guidance_scale=2.5,
    full_steps=20,
    max_steps=30,
    images=16,
    held_out_images=16,
    batch_size=4,
    seed=0,
    prompts="2",
    held_out="3",
    reference="4",
    scorer="scorer@5",
    network="network@6",
    distance="frechet",
    objective=(1.0, 4.0),
    target=None,
    call_batch=None,
    max_memory=None,
    knobs=("interval 1..4",),
    sampler="tpe",
    early_stopping=True,
)


@pytest.mark.parametrize("changed", [{"budget": "50%"}, {"sampler": "random"}, {"knobs": ()}])
def test_what_only_chooses_candidates_leaves_their_pictures_alone(changed: dict[str, object]) -> None:
    other = replace(ONE, **changed)  # type: ignore[arg-type]
    assert other.pictures_digest == ONE.pictures_digest
    assert differs(ONE.document(), other.document())


@pytest.mark.parametrize("changed", [{"seed": 1}, {"network": None}, {"call": {"strength": 0.5}}])
def test_what_pictures_or_judges_depend_on_changes_their_digest(changed: dict[str, object]) -> None:
    assert replace(ONE, **changed).pictures_digest != ONE.pictures_digest  # type: ignore[arg-type]


def test_the_first_difference_is_said_in_words() -> None:
    other = replace(ONE, full_steps=25, call={"strength": 0.5})
    assert difference(ONE.document(), other.document()) == "its full steps were 20, now they are 25"
    only = replace(ONE, call={"strength": 0.5})
    assert difference(ONE.document(), only.document()) == "its strength was None, now it is 0.5"


def test_other_statistics_beside_the_reference_are_another_study() -> None:
    one, other = (replace(ONE, statistics=(f"distance-textures real@{content}",)) for content in (1, 2))
    assert difference(one.document(), other.document()).startswith("its statistics were ['distance-textures real@1']")
    assert differs(ONE.document(), one.document())
    assert one.pictures_digest == ONE.pictures_digest


def test_a_scorer_that_has_nothing_to_say_may_be_missing() -> None:
    with_scorer, without = (replace(ONE, scorer=scorer, objective=(1.0, 0.0)) for scorer in ("scorer@5", None))
    assert not differs(with_scorer.document(), without.document())
    assert differs(with_scorer.document(), replace(without, network=None).document())
    assert differs(ONE.document(), replace(ONE, scorer=None).document())
