"""A search as its folder tells of it, without its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import HeunDiscreteScheduler

from autotune.cost import Pricer, parse_budget
from autotune.options import SetupOptions
from autotune.policy import Policy
from autotune.results.search_record import read_search_record
from autotune.workflows.search_record import keep_search_record
from autotune.workflows.setup import prepare
from tests.support.fake_search import HELD_OUT, PROMPTS, ReadingScorer


def test_a_search_record_plans_as_the_pricer_does_second_order_solvers_too(pipe: Any, tmp_path: Path) -> None:
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
