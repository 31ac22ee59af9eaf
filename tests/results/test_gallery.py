"""What the search leaves for those who show it."""

from __future__ import annotations

import random
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from autotune.cost import Pricer, parse_budget
from autotune.options import SetupOptions
from autotune.policy import Policy
from autotune.results.gallery import FOLDER, choose_rows, read_gallery
from autotune.results.search_record import keep_search_record, read_search_record
from autotune.workflows.setup import prepare
from autotune.workflows.tune import TuneResult, tune
from tests.support.fake_search import HELD_OUT, PROMPTS, FakePictures, ReadingScorer


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=40), st.integers(1, 12), st.integers(1, 5))
def test_rows_are_the_worst_the_best_and_the_first_others_without_repeating_a_prompt(
    degradation: list[float], different: int, each: int
) -> None:
    chance = random.Random(0)
    prompts = [f"prompt {chance.randrange(different)}" for _ in degradation]
    chosen = choose_rows(prompts, degradation, each)
    names = [prompts[row] for row, _ in chosen]
    assert len(names) == len(set(names)) <= 3 * each
    by = {why: [degradation[row] for row, reason in chosen if reason == why] for why in ("worst", "best", "random")}
    assert by["worst"][0] == max(degradation)
    assert by["worst"] == sorted(by["worst"], reverse=True) and by["best"] == sorted(by["best"])
    if by["best"]:
        assert min(by["worst"]) >= max(by["best"]) or len(set(prompts)) < len(prompts)


def test_shown_pictures_are_those_that_were_scored(whole: TuneResult) -> None:
    gallery = read_gallery(whole.run_dir)
    assert gallery is not None and gallery.among == 12
    assert [run.key for run in gallery.runs] == [run.policy.key for run in whole.finalists.headline_runs]
    assert {shown.why for shown in gallery.prompts} == {"worst", "best", "random"}
    for shown in gallery.prompts:
        row = whole.preview_prompts.index(shown.prompt)
        for place, picture in enumerate(shown.pictures):
            with Image.open(whole.run_dir / FOLDER / picture.file) as image:
                seen = torch.tensor(list(image.convert("RGB").tobytes()), dtype=torch.uint8).view(8, 8, 3)
            assert torch.equal(seen.permute(2, 0, 1), whole.previews[place][row])
        assert shown.degradation == round(shown.pictures[0].alignment - shown.pictures[-1].alignment, 6) or (
            abs(shown.degradation - shown.pictures[0].alignment + shown.pictures[-1].alignment) < 2e-6
        )
    degradations = [shown.degradation for shown in gallery.prompts if shown.why == "worst"]
    assert min(degradations) >= max(shown.degradation for shown in gallery.prompts if shown.why != "worst")


def test_nothing_is_made_again_when_a_search_goes_on(
    pipe: Any, pictures: FakePictures, continued: dict[str, Any]
) -> None:
    before = (continued["run_dir"] / FOLDER / "pictures.json").read_bytes()
    tune(pipe, "40%", **continued)
    timed = 1 + 3 * 2  # What measuring time needs at most.
    assert len(pictures.made) <= 3 * timed
    next((continued["run_dir"] / FOLDER).glob("*.webp")).unlink()
    tune(pipe, "40%", **continued)
    assert (continued["run_dir"] / FOLDER / "pictures.json").read_bytes() == before
    assert len(list((continued["run_dir"] / FOLDER).glob("*.webp"))) == 3 * len(HELD_OUT)


def test_an_outline_plans_as_the_pricer_does_second_order_solvers_too(pipe: Any, tmp_path: Any) -> None:
    from diffusers import HeunDiscreteScheduler

    before = pipe.scheduler
    pipe.scheduler = HeunDiscreteScheduler.from_config(before.config)
    try:
        options = SetupOptions(
            prompts=PROMPTS,
            held_out=HELD_OUT,
            scorer=ReadingScorer(),
            steps=10,
            images=12,
            held_out_images=12,
            batch_size=4,
        )
        (setup,) = prepare(pipe, [parse_budget("40%")], options)
        keep_search_record(setup, tmp_path, study="study", storage="postgresql://me:secret@host/name")
        expected = Pricer(pipe, full_steps=10).plan(Policy(steps=7))
    finally:
        pipe.scheduler = before
    search_record = read_search_record(tmp_path)
    assert search_record is not None and search_record.storage == "postgresql://me@host/name"
    plan = search_record.plan(Policy(steps=7))
    assert [step.step for step in plan.steps] == [step.step for step in expected.steps]
    assert len(plan.steps) == 13
    assert [unit.name for unit in plan.structure.units] == [unit.name for unit in expected.structure.units]
    assert "secret" not in (tmp_path / "search.json").read_text()
    recipe = setup.recipes[1].proposal
    breakdown = search_record.breakdown(recipe.policy)
    assert breakdown is not None and sum(call.flops for call in breakdown.steps) == recipe.cost.flops
